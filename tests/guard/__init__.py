"""Tests of kernel_module/: built for Debian's kernels, run in a virtual machine against a stand-in for the driver."""
