"""Written by CMake into the installed package: what it was built from."""

VERSION: str
OPENVINO_VERSION: str
"""The one OpenVINO version that the extension module works with."""
OPENVINO_LIBRARY: str
"""File name of the OpenVINO library, its soname."""
