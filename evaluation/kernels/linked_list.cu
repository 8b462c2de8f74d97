// Walks linked lists through pointers that lie in device memory: one list per thread. Exact.
// The pointers are found in no argument, so nobody can translate them: one address space must hold.
struct Node {
    Node *next;
    long long value;
};

extern "C" __global__ void linked_list(Node *const *heads, int lists, long long *sums, int *lengths) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= lists) {
        return;
    }
    long long sum = 0;
    int length = 0;
    for (const Node *node = heads[i]; node != nullptr; node = node->next) {
        sum += node->value;
        length++;
    }
    sums[i] = sum;
    lengths[i] = length;
}

// Links `count` nodes into one list, in order: writes pointers that only the device has seen.
extern "C" __global__ void link_nodes(Node *nodes, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) {
        nodes[i].next = i + 1 < count ? &nodes[i + 1] : nullptr;
        nodes[i].value = i;
    }
}
