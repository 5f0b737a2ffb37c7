"""Processors that QEMU's user-mode emulation stands for: phones, and older desktops."""
