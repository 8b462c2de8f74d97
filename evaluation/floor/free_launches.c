/* Launches and memsets that cost nothing, on demand: preloaded into a native process, to measure what is left.
 *
 * It is libcuda.so.1 for the process (its SONAME), with the machine's driver behind it: that is its one dependency, by path
 * (see run), so every name that is not here is found there. Libraries with a cudart inside, and libcudart itself, open
 * libcuda.so.1 by name and ask cuGetProcAddress for the rest; both find this library, and get its launches and memsets. The
 * runtime's names, to which PyTorch's own calls bind, are preloaded in front of libcudart's.
 *
 * free_launches(level): 0 as always; 1 the driver's launches and memsets return at once; 2 the runtime's as well. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

typedef int (*function)();

static atomic_int level;
static atomic_long skipped;

void free_launches(int wanted) { atomic_store(&level, wanted); }
long free_launches_skipped(void) { return atomic_load(&skipped); }

static int is_free(int from) {
    if (atomic_load_explicit(&level, memory_order_relaxed) < from)
        return 0;
    atomic_fetch_add_explicit(&skipped, 1, memory_order_relaxed);
    return 1;
}

static void *must(void *found, const char *name) {
    if (found == NULL) {
        fprintf(stderr, "free_launches: nothing behind %s\n", name);
        abort();
    }
    return found;
}

/* The driver's function behind one of ours. */
static void *behind(const char *name) { return must(dlsym(RTLD_NEXT, name), name); }

/* libcudart's function behind one of ours: it is loaded later, and perhaps not for everybody. */
static int find_runtime(struct dl_phdr_info *object, size_t size, void *path) {
    (void)size;
    const char *name = object->dlpi_name ? strrchr(object->dlpi_name, '/') : NULL;
    if (name == NULL || strncmp(name, "/libcudart.so.13", 16) != 0)
        return 0;
    *(const char **)path = object->dlpi_name;
    return 1;
}

static void *behind_runtime(const char *name) {
    const char *path = NULL;
    dl_iterate_phdr(find_runtime, &path);
    void *library = path ? dlopen(path, RTLD_NOLOAD | RTLD_LAZY) : NULL;
    return must(library ? dlsym(library, name) : NULL, name);
}

/* A function whose first six arguments are in registers and some more on the stack; CUDA's have at most twelve words here. */
#define PARAMETERS uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h, uint64_t i, \
                   uint64_t j, uint64_t k, uint64_t l
#define ARGUMENTS a, b, c, d, e, f, g, h, i, j, k, l
typedef int (*twelve)(PARAMETERS);

/* cuGetProcAddress fills in what is behind, for it knows the variant that was asked for; a caller by name gets the named one. */
#define REPLACE(name, from, search)                                          \
    static twelve real_##name;                                               \
    int name(PARAMETERS) {                                                   \
        if (is_free(from))                                                   \
            return 0;                                                        \
        if (real_##name == NULL)                                             \
            real_##name = (twelve)search(#name);                             \
        return real_##name(ARGUMENTS);                                       \
    }

REPLACE(cuLaunchKernel, 1, behind)
REPLACE(cuLaunchKernelEx, 1, behind)
REPLACE(cuLaunchCooperativeKernel, 1, behind)
REPLACE(cuMemsetD8Async, 1, behind)
REPLACE(cuMemsetD16Async, 1, behind)
REPLACE(cuMemsetD32Async, 1, behind)
REPLACE(cuMemsetD2D8Async, 1, behind)
REPLACE(cuMemsetD2D32Async, 1, behind)

REPLACE(__cudaLaunchKernel, 2, behind_runtime)
REPLACE(cudaLaunchKernel, 2, behind_runtime)
REPLACE(cudaLaunchKernelExC, 2, behind_runtime)
REPLACE(cudaMemsetAsync, 2, behind_runtime)

static const struct {
    const char *name;
    twelve ours;
    twelve *real;
} REPLACED[] = {
#define ROW(name) {#name, name, &real_##name}
    ROW(cuLaunchKernel),    ROW(cuLaunchKernelEx), ROW(cuLaunchCooperativeKernel), ROW(cuMemsetD8Async),
    ROW(cuMemsetD16Async),  ROW(cuMemsetD32Async), ROW(cuMemsetD2D8Async),         ROW(cuMemsetD2D32Async),
};

#define PER_THREAD_DEFAULT_STREAM 2 /* CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM; left alone, PyTorch does not ask */

int cuGetProcAddress(const char *, void **, int, uint64_t);
int cuGetProcAddress_v2(const char *, void **, int, uint64_t, void *);

static void replace(const char *name, int version, void **place, uint64_t flags) {
    if (place == NULL || *place == NULL)
        return;
    /* Whoever asks for this function goes on asking it; from 12000 on the name means the second variant. */
    if (strcmp(name, "cuGetProcAddress") == 0) {
        *place = version >= 12000 ? (void *)cuGetProcAddress_v2 : (void *)cuGetProcAddress;
        return;
    }
    for (size_t index = 0; index < sizeof REPLACED / sizeof *REPLACED; index++)
        if (strcmp(REPLACED[index].name, name) == 0 && !(flags & PER_THREAD_DEFAULT_STREAM)) {
            *REPLACED[index].real = (twelve)*place;
            *place = (void *)REPLACED[index].ours;
            return;
        }
}

int cuGetProcAddress(const char *name, void **place, int version, uint64_t flags) {
    static int (*real)(const char *, void **, int, uint64_t);
    if (real == NULL)
        real = behind("cuGetProcAddress");
    int code = real(name, place, version, flags);
    if (code == 0)
        replace(name, version, place, flags);
    return code;
}

int cuGetProcAddress_v2(const char *name, void **place, int version, uint64_t flags, void *status) {
    static int (*real)(const char *, void **, int, uint64_t, void *);
    if (real == NULL)
        real = behind("cuGetProcAddress_v2");
    int code = real(name, place, version, flags, status);
    if (code == 0)
        replace(name, version, place, flags);
    return code;
}
