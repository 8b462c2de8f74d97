/* Preloaded: how much heap memory one library of the process holds (the shim: its text is found by its file's name).
 *
 * An allocation is the library's if the function that called malloc lies in it, and so is a free; a Rust library frees what
 * it allocates. The rest of the process allocates as it always does. Sizes are what malloc gives, with 8 bytes of its own. */
#define _GNU_SOURCE
#include <errno.h>
#include <link.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#define LIBRARY "libtorpor_intercept.so"
#define OVERHEAD 8

/* glibc's own, under the names that cannot be interposed. */
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static ElfW(Addr) text_begin, text_end;
static atomic_long held, peak;

static int visit(struct dl_phdr_info *object, size_t size, void *unused) {
    (void)size, (void)unused;
    if (object->dlpi_name == NULL || strstr(object->dlpi_name, LIBRARY) == NULL)
        return 0;
    for (int index = 0; index < object->dlpi_phnum; index++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[index];
        if (part->p_type == PT_LOAD && (part->p_flags & PF_X)) {
            text_begin = object->dlpi_addr + part->p_vaddr;
            text_end = text_begin + part->p_memsz;
        }
    }
    return 1;
}

__attribute__((constructor)) static void find_library(void) { dl_iterate_phdr(visit, NULL); }

static int is_of_library(void *caller) {
    ElfW(Addr) address = (ElfW(Addr))caller;
    return address >= text_begin && address < text_end;
}

static void count(void *memory, long sign) {
    if (memory == NULL)
        return;
    long change = sign * (long)(malloc_usable_size(memory) + OVERHEAD);
    long now = atomic_fetch_add(&held, change) + change;
    long most = atomic_load(&peak);
    while (now > most && !atomic_compare_exchange_weak(&peak, &most, now))
        ;
}

#define CALLER __builtin_return_address(0)

void *malloc(size_t bytes) {
    void *memory = __libc_malloc(bytes);
    if (is_of_library(CALLER))
        count(memory, 1);
    return memory;
}

void *calloc(size_t number, size_t bytes) {
    void *memory = __libc_calloc(number, bytes);
    if (is_of_library(CALLER))
        count(memory, 1);
    return memory;
}

void *realloc(void *old, size_t bytes) {
    int counted = is_of_library(CALLER);
    if (counted)
        count(old, -1);
    void *memory = __libc_realloc(old, bytes);
    if (counted)
        count(memory == NULL && bytes > 0 ? old : memory, 1);
    return memory;
}

int posix_memalign(void **place, size_t alignment, size_t bytes) {
    void *memory = __libc_memalign(alignment, bytes);
    if (memory == NULL)
        return ENOMEM;
    if (is_of_library(CALLER))
        count(memory, 1);
    *place = memory;
    return 0;
}

void *aligned_alloc(size_t alignment, size_t bytes) {
    void *memory = __libc_memalign(alignment, bytes);
    if (is_of_library(CALLER))
        count(memory, 1);
    return memory;
}

void free(void *memory) {
    if (is_of_library(CALLER))
        count(memory, -1);
    __libc_free(memory);
}

long caller_heap_bytes(void) { return atomic_load(&held); }
long caller_heap_peak_bytes(void) { return atomic_load(&peak); }
