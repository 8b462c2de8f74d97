"""Structures of cuda.h that several scripts give to the driver."""
import ctypes
from ctypes import c_size_t, c_uint, c_uint64, c_void_p


class End(ctypes.Structure):
    _fields_ = [("x", c_size_t), ("y", c_size_t), ("z", c_size_t), ("lod", c_size_t), ("type", c_uint), ("host", c_void_p),
                ("device", c_uint64), ("array", c_void_p), ("reserved", c_void_p), ("pitch", c_size_t), ("height", c_size_t)]


class Copy(ctypes.Structure):
    _fields_ = [("source", End), ("destination", End), ("width", c_size_t), ("height", c_size_t), ("depth", c_size_t)]


class Conditional(ctypes.Structure):
    _fields_ = [("type", c_uint), ("reserved", c_uint * 3), ("handle", c_uint64), ("kind", c_uint), ("size", c_uint),
                ("graphs", ctypes.POINTER(c_void_p)), ("context", c_void_p), ("rest", c_uint64 * 26)]


class UpdateInfo(ctypes.Structure):
    _fields_ = [("result", c_uint), ("node", c_void_p), ("source", c_void_p)]


class HostParams(ctypes.Structure):
    _fields_ = [("function", c_void_p), ("data", c_void_p)]


class FillParams(ctypes.Structure):
    _fields_ = [("address", c_uint64), ("pitch", c_size_t), ("value", c_uint), ("element", c_uint),
                ("width", c_size_t), ("height", c_size_t)]
