"""What runs inside the micro-VM: on little of the standard library, because processors may be emulated."""
