"""Arrays, texture and surface objects on both surfaces, as far as the simulated GPU goes: what copies move, and what is refused."""
import ctypes as c
import torch

torch.empty(1, device="cuda")
driver, runtime = c.CDLL("libcuda.so.1"), c.CDLL(None)
SUCCESS, INVALID_VALUE, OUT_OF_MEMORY, INVALID_HANDLE, NOT_SUPPORTED, CAPTURING = 0, 1, 2, 400, 801, 900
HOST, DEVICE, ARRAY = 1, 2, 3
WORD = 3  # CU_AD_FORMAT_UNSIGNED_INT32
LAYERED, SURFACE = 1, 2
size = c.c_size_t


class Descriptor(c.Structure):
    _fields_ = [("width", size), ("height", size), ("depth", size), ("format", c.c_uint), ("channels", c.c_uint), ("flags", c.c_uint)]


class End(c.Structure):
    _fields_ = [("x", size), ("y", size), ("z", size), ("lod", size), ("kind", c.c_uint), ("host", c.c_void_p), ("device", c.c_uint64),
                ("array", c.c_void_p), ("reserved", c.c_void_p), ("pitch", size), ("height", size)]


class Copy(c.Structure):
    _fields_ = [("source", End), ("destination", End), ("width", size), ("height", size), ("depth", size)]


def ok(code):
    assert code == SUCCESS, code


def array(width, height=0, depth=0, flags=0):
    made = c.c_void_p()
    ok(driver.cuArray3DCreate_v2(c.byref(made), c.byref(Descriptor(width, height, depth, WORD, 1, flags))))
    return made


kept = []


def words(numbers):
    kept.append((c.c_uint32 * len(numbers))(*numbers))  # structures have its address alone
    return kept[-1]


def host(buffer, pitch, height=0):
    return End(kind=HOST, host=c.addressof(buffer), pitch=pitch, height=height)


def device(tensor, pitch, height=0):
    return End(kind=DEVICE, device=tensor.data_ptr(), pitch=pitch, height=height)


def inside(array, x=0, y=0, z=0):
    return End(kind=ARRAY, array=array, x=4 * x, y=y, z=z)


def copy(destination, source, width, height=1, depth=1):
    return driver.cuMemcpy3D_v2(c.byref(Copy(source, destination, 4 * width, height, depth)))


# Boxes: pageable memory into an array, a part of it into another array, to the device and back.
numbers = list(range(1, 8 * 4 * 3 + 1))
cube, flat = array(8, 4, 3), array(4, 2)
ok(copy(inside(cube), host(words(numbers), 32, 4), 8, 4, 3))
ok(copy(inside(flat), inside(cube, 2, 1, 2), 4, 2))
tensor = torch.zeros(64, dtype=torch.int32).cuda()
ok(copy(device(tensor, 32), inside(flat), 4, 2))
torch.cuda.synchronize()
expected = [[numbers[(2 * 4 + 1 + row) * 8 + 2 + column] for column in range(4)] for row in range(2)]
assert tensor.cpu()[:16].reshape(2, 8)[:, :4].tolist() == expected
back = words([0] * 8)
ok(copy(host(back, 16), inside(flat), 4, 2))
assert list(back) == sum(expected, [])
pinned = torch.zeros(8, dtype=torch.int32).pin_memory()
end = End(kind=HOST, host=pinned.data_ptr(), pitch=16)
ok(copy(end, inside(flat), 4, 2))
assert pinned.tolist() == sum(expected, [])

# Larger than a piece of the staging, through pageable memory.
large, rows = array(1000, 1500), list(range(1000 * 1500))
ok(copy(inside(large), host(words(rows), 4000), 1000, 1500))
much = words([0] * len(rows))
ok(copy(host(much, 4000), inside(large), 1000, 1500))
assert list(much) == rows

# Bytes in a line: rows follow each other.
line = words([0] * 8)
ok(driver.cuMemcpyAtoH_v2(line, cube, size(12), size(32)))
assert list(line) == numbers[3:11]
ok(driver.cuMemcpyHtoA_v2(cube, size(16), words([100 + index for index in range(10)]), size(40)))
ok(driver.cuMemcpyAtoH_v2(line, cube, size(16), size(32)))
assert list(line) == list(range(100, 108))
ok(driver.cuMemcpyAtoA_v2(flat, size(4), cube, size(16), size(24)))
ok(driver.cuMemcpyAtoD_v2(c.c_uint64(tensor.data_ptr()), flat, size(0), size(32)))
torch.cuda.synchronize()
assert tensor.cpu()[:8].tolist() == [expected[0][0], *range(100, 106), expected[1][3]]
assert driver.cuMemcpyAtoH_v2(line, cube, size(8 * 4 * 4), size(4)) == INVALID_VALUE

# What does not lie in the array, and what is no array.
for wrong in (inside(flat, 1), inside(flat, 0, 1), inside(flat, 0, 0, 1)):
    assert copy(host(back, 16), wrong, 4, 2) == INVALID_VALUE
assert copy(host(back, 8), inside(flat), 4, 2) == INVALID_VALUE
assert copy(host(back, 16), inside(c.c_void_p(12345)), 4, 2) == INVALID_HANDLE
assert copy(device(tensor, 32), inside(flat), 4, 0) == SUCCESS
said = Descriptor()
ok(driver.cuArray3DGetDescriptor_v2(c.byref(said), cube))
assert [getattr(said, name) for name, _ in Descriptor._fields_] == [8, 4, 3, WORD, 1, 0]
for descriptor in (Descriptor(0, 4, 0, WORD, 1), Descriptor(8, 0, 8, WORD, 1), Descriptor(8, 4, 0, WORD, 1, LAYERED)):
    assert driver.cuArray3DCreate_v2(c.byref(c.c_void_p()), c.byref(descriptor)) == INVALID_VALUE
assert driver.cuArray3DCreate_v2(c.byref(c.c_void_p()), c.byref(Descriptor(8, 4, 0, WORD, 3))) != SUCCESS

# In a capture there are no arrays; the stream can be used again.
stream = torch.cuda.Stream()
graph = c.c_void_p()
ok(driver.cuStreamBeginCapture_v2(c.c_void_p(stream.cuda_stream), 2))
described = Copy(inside(flat), host(back, 16), 16, 2, 1)
assert driver.cuMemcpy3DAsync_v2(c.byref(described), c.c_void_p(stream.cuda_stream)) == CAPTURING
assert driver.cuStreamEndCapture(c.c_void_p(stream.cuda_stream), c.byref(graph)) != SUCCESS
ok(driver.cuMemcpy3DAsync_v2(c.byref(described), c.c_void_p(stream.cuda_stream)))
stream.synchronize()
assert list(back)[1:7] == list(range(100, 106))


# Objects: the handles are the driver's.
class Resource(c.Structure):
    _fields_ = [("kind", c.c_uint), ("words", c.c_uint64 * 16), ("flags", c.c_uint)]


class Sampler(c.Structure):
    _fields_ = [("modes", c.c_uint * 3), ("filter", c.c_uint), ("flags", c.c_uint), ("rest", c.c_uint32 * 21)]


def texture(kind, *values):
    made, resource = c.c_uint64(), Resource(kind, (c.c_uint64 * 16)(*values), 0)
    return driver.cuTexObjectCreate(c.byref(made), c.byref(resource), c.byref(Sampler(filter=1)), None), made


code, over_array = texture(0, flat.value)
ok(code)
element = WORD | 1 << 32
code, over_memory = texture(2, tensor.data_ptr(), element, 256)
ok(code)
resource, sampler = Resource(), Sampler()
ok(driver.cuTexObjectGetResourceDesc(c.byref(resource), over_array))
assert (resource.kind, resource.words[0]) == (0, flat.value)
ok(driver.cuTexObjectGetResourceDesc(c.byref(resource), over_memory))
assert (resource.kind, list(resource.words[:3])) == (2, [tensor.data_ptr(), element, 256])
ok(driver.cuTexObjectGetTextureDesc(c.byref(sampler), over_array))
assert sampler.filter == 1
assert driver.cuTexObjectGetResourceViewDesc(c.byref((c.c_uint8 * 112)()), over_array) == INVALID_VALUE
assert texture(2, tensor.data_ptr(), element, 1 << 40)[0] == INVALID_VALUE, "beyond the memory"
assert texture(2, c.addressof(back), element, 32)[0] == INVALID_VALUE, "the program's own memory"
assert texture(0, 4711)[0] == INVALID_HANDLE
surface, for_surfaces = c.c_uint64(), array(8, 4, 0, SURFACE)
assert driver.cuSurfObjectCreate(c.byref(surface), c.byref(Resource(0, (c.c_uint64 * 16)(flat.value)))) == INVALID_VALUE
ok(driver.cuSurfObjectCreate(c.byref(surface), c.byref(Resource(0, (c.c_uint64 * 16)(for_surfaces.value)))))
ok(driver.cuSurfObjectGetResourceDesc(c.byref(resource), surface))
assert resource.words[0] == for_surfaces.value
assert driver.cuTexObjectDestroy(c.c_uint64(99)) == INVALID_VALUE
for made in (over_array, over_memory):
    ok(driver.cuTexObjectDestroy(made))
ok(driver.cuSurfObjectDestroy(surface))
assert driver.cuTexObjectDestroy(over_array) == INVALID_VALUE

# Levels.
levels, level = c.c_void_p(), c.c_void_p()
ok(driver.cuMipmappedArrayCreate(c.byref(levels), c.byref(Descriptor(8, 8, 0, WORD, 1, 0)), 4))
ok(driver.cuMipmappedArrayGetLevel(c.byref(level), levels, 2))
ok(copy(inside(level), host(words([5, 6, 7, 8]), 8), 2, 2))
four = words([0] * 4)
ok(copy(host(four, 8), inside(level), 2, 2))
assert list(four) == [5, 6, 7, 8]
assert driver.cuMipmappedArrayGetLevel(c.byref(level), levels, 4) == INVALID_VALUE
assert driver.cuArrayDestroy(level) == INVALID_HANDLE
ok(driver.cuMipmappedArrayDestroy(levels))
assert copy(host(four, 8), inside(level), 2, 2) == INVALID_HANDLE
for made in (cube, flat, large, for_surfaces):
    ok(driver.cuArrayDestroy(made))
    assert driver.cuArrayDestroy(made) == INVALID_HANDLE


# The same on the runtime surface, whose structures are its own.
class Format(c.Structure):
    _fields_ = [("x", c.c_int), ("y", c.c_int), ("z", c.c_int), ("w", c.c_int), ("kind", c.c_int)]


class Extent(c.Structure):
    _fields_ = [("width", size), ("height", size), ("depth", size)]


class Pitched(c.Structure):
    _fields_ = [("address", c.c_void_p), ("pitch", size), ("width", size), ("height", size)]


class Parameters(c.Structure):
    _fields_ = [("from_array", c.c_void_p), ("from_at", Extent), ("source", Pitched), ("to_array", c.c_void_p), ("to_at", Extent),
                ("destination", Pitched), ("extent", Extent), ("kind", c.c_int)]


H2D, D2H, D2D = 1, 2, 3
unsigned = Format(32, 0, 0, 0, 1)
plane, box, elements, extent, flags = c.c_void_p(), c.c_void_p(), Format(), Extent(), c.c_uint()
ok(runtime.cudaMallocArray(c.byref(plane), c.byref(unsigned), size(4), size(2), c.c_uint(0)))
runtime.cudaMalloc3DArray.argtypes = [c.c_void_p, c.c_void_p, Extent, c.c_uint]
ok(runtime.cudaMalloc3DArray(c.byref(box), c.byref(unsigned), Extent(8, 4, 3), LAYERED))
ok(runtime.cudaArrayGetInfo(c.byref(elements), c.byref(extent), c.byref(flags), box))
assert [elements.x, elements.y, elements.kind] == [32, 0, 1] and flags.value == LAYERED
assert [extent.width, extent.height, extent.depth] == [8, 4, 3]
ok(runtime.cudaGetChannelDesc(c.byref(elements), plane))
assert [elements.x, elements.kind] == [32, 1]
source = words(range(8))
ok(runtime.cudaMemcpy2DToArray(plane, size(0), size(0), source, size(16), size(16), size(2), H2D))
ok(runtime.cudaMemcpy2DFromArray(back, size(8), plane, size(4), size(0), size(8), size(2), D2H))
assert list(back)[:4] == [1, 2, 5, 6]
assert runtime.cudaMemcpy2DFromArray(back, size(8), plane, size(12), size(0), size(8), size(2), D2H) == INVALID_VALUE
assert runtime.cudaGetLastError() == INVALID_VALUE
data = words(numbers)
parameters = Parameters(source=Pitched(c.addressof(data), 32, 8, 4), to_array=box, extent=Extent(8, 4, 3), kind=H2D)
ok(runtime.cudaMemcpy3D(c.byref(parameters)))
parameters = Parameters(from_array=box, from_at=Extent(2, 1, 2), to_array=plane, extent=Extent(4, 2, 1), kind=D2D)
ok(runtime.cudaMemcpy3D(c.byref(parameters)))
ok(runtime.cudaMemcpy2DFromArray(back, size(16), plane, size(0), size(0), size(16), size(2), D2H))
assert list(back) == sum(expected, [])
handle = c.c_uint64()


class Resource13(c.Structure):
    _fields_ = [("kind", c.c_uint), ("address", c.c_uint64), ("format", Format), ("width", c.c_uint64), ("rest", c.c_uint64 * 14)]


class Sampler13(c.Structure):
    _fields_ = [("modes", c.c_uint * 3), ("filter", c.c_uint), ("read", c.c_uint), ("rest", c.c_uint32 * 13)]


def seen(resource, filtering=0, reading=0):
    sampler = Sampler13((2, 2, 2), filtering, reading)
    return runtime.cudaCreateTextureObject(c.byref(handle), c.byref(resource), c.byref(sampler), None)


INVALID_FILTER, INVALID_NORM = 26, 27
assert seen(Resource13(0, plane.value), filtering=1) == INVALID_FILTER, "there is nothing between two integers"
assert seen(Resource13(0, plane.value), reading=1) == INVALID_NORM, "32 bits are too many for a number from 0 to 1"
ok(seen(Resource13(0, plane.value)))
resource, sampler = Resource13(), Sampler13()
ok(runtime.cudaGetTextureObjectResourceDesc(c.byref(resource), handle))
assert (resource.kind, resource.address) == (0, plane.value)
ok(runtime.cudaGetTextureObjectTextureDesc(c.byref(sampler), handle))
assert (list(sampler.modes)[:1], sampler.filter, sampler.read) == ([2], 0, 0)
ok(runtime.cudaDestroyTextureObject(handle))
ok(seen(Resource13(2, tensor.data_ptr(), unsigned, 256)))
ok(runtime.cudaGetTextureObjectResourceDesc(c.byref(resource), handle))
assert (resource.kind, resource.address, resource.format.x, resource.width) == (2, tensor.data_ptr(), 32, 256)
ok(runtime.cudaDestroyTextureObject(handle))
for made in (plane, box):
    ok(runtime.cudaFreeArray(made))
ok(runtime.cudaFreeArray(None))
print("arrays passed")
