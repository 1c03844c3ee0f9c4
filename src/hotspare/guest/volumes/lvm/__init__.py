"""LVM2: physical volumes, the text that describes their volume group, and where its logical volumes lie."""
