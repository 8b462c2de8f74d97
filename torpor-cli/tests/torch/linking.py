"""Linking one input gives an image that can be loaded; what would need a linker is refused."""
import ctypes as c
import os
import torch

PTX, OBJECT = 1, 3
PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../evaluation/kernels/vector_add.ptx")
driver = c.CDLL("libcuda.so.1")
torch.empty(1, device="cuda")


def check(code):
    assert code == 0, code


def new_link():
    made = c.c_void_p()
    sizes = (c.c_uint * 1)(4)  # CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES
    values = (c.c_size_t * 1)(1000)
    check(driver.cuLinkCreate_v2(1, sizes, values, c.byref(made)))
    assert values[0] == 0, "there is a log"
    return made


def add_data(link, kind, data):
    return driver.cuLinkAddData_v2(link, kind, data, c.c_size_t(len(data)), b"name", 0, None, None)


def add_file(link, path):
    return driver.cuLinkAddFile_v2(link, PTX, path.encode(), 0, None, None)


def complete(link):
    image, length = c.c_void_p(), c.c_size_t()
    check(driver.cuLinkComplete(link, c.byref(image), c.byref(length)))
    return image, length.value


def run(image):
    module, function = c.c_void_p(), c.c_void_p()
    check(driver.cuModuleLoadData(c.byref(module), image))
    check(driver.cuModuleGetFunction(c.byref(function), module, b"vector_add"))
    one, two, total = torch.arange(32.0).cuda(), torch.full((32,), 5.0).cuda(), torch.zeros(32).cuda()
    arguments = [c.c_uint64(tensor.data_ptr()) for tensor in (one, two, total)] + [c.c_int(32)]
    places = (c.c_void_p * 4)(*(c.addressof(argument) for argument in arguments))
    check(driver.cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, None, places, None))
    sums = [tensor.cpu() for tensor in (one, two, total)]
    assert any(torch.equal(each, torch.arange(32.0) + 5) for each in sums), sums
    check(driver.cuModuleUnload(module))


with open(PATH, "rb") as file:
    text = file.read()
link = new_link()
assert driver.cuLinkComplete(link, c.byref(c.c_void_p()), c.byref(c.c_size_t())) == 1, "nothing was added"
check(add_data(link, PTX, text))
image, length = complete(link)
assert length == len(text) + 1
run(image)
assert add_data(link, PTX, text) == 801, "a second input"
run(complete(link)[0])
check(driver.cuLinkDestroy(link))
assert driver.cuLinkDestroy(link) == 400

link = new_link()
assert add_data(link, OBJECT, b"\x7fELF") == 801
assert add_file(link, "/nonexistent.ptx") == 301
check(add_file(link, PATH))
run(complete(link)[0])
print("linking passed")
