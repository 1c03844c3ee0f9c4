"""From a repository back to where machines live: whole machines, single disks, or disks that are served."""
