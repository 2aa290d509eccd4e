/*
 * The calls of bpf(2) that we need, and macros for programs that are written as arrays of instructions with labels.
 *
 * Sources: bpf(2), Documentation/bpf/standardization/instruction-set.rst, socket(7), linux/if_tun.h, linux/filter.h.
 */
#ifndef TARTAN_BPF_H
#define TARTAN_BPF_H

#include <linux/bpf.h>
#include <stddef.h>
#include <stdint.h>

enum { R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FRAME };

#define INSN(c, d, s, o, i) { .code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (int32_t)(i) }
#define ALU(op, d, s) INSN(BPF_ALU64 | BPF_X | BPF_##op, d, s, 0, 0)
#define ALU_K(op, d, i) INSN(BPF_ALU64 | BPF_K | BPF_##op, d, 0, 0, i)
#define LOAD(size, d, s, o) INSN(BPF_LDX | BPF_MEM | BPF_##size, d, s, o, 0)
#define STORE(size, d, o, s) INSN(BPF_STX | BPF_MEM | BPF_##size, d, s, o, 0)
/* Loads from the packet into R0, in host order. Past the packet's end the program ends with 0. Overwrites R1 to R5. */
#define PACKET(size, at) INSN(BPF_LD | BPF_ABS | BPF_##size, 0, 0, 0, at)
#define PACKET_AT(size, r) INSN(BPF_LD | BPF_IND | BPF_##size, 0, r, 0, 0)
/* Jumps to a label, which bpf_load() replaces by a distance. */
#define JUMP(op, d, s, label) INSN(BPF_JMP | BPF_X | BPF_##op, d, s, label, 0)
#define JUMP_K(op, d, i, label) INSN(BPF_JMP | BPF_K | BPF_##op, d, 0, label, i)
#define CALL(function) INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_##function)
#define EXIT INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
#define LABEL_CODE 0xff /* no instruction has it */
#define LABEL(label) INSN(LABEL_CODE, 0, 0, label, 0)
#define LABELS_MAX 32 /* labels are numbers below it */

struct bpf_map_kind {
	const char *name; /* that bpftool(8) shows; at most 15 characters */
	enum bpf_map_type type;
	uint32_t key_bytes;
	uint32_t value_bytes;
	uint32_t entries;
	uint32_t flags;
};

/* All return a descriptor, or -1 with errno. bpf_load() is for sockets and TUN links, and changes the program in place. */
int bpf_create_map(const struct bpf_map_kind *kind);
int bpf_create_array(uint32_t value_bytes, uint32_t entries);
int bpf_load(struct bpf_insn *program, size_t count);
/* A program for tc-bpf(8), under a licence that lends it all helpers. `log` may be NULL, else it gets the verifier's. */
int bpf_load_filter(const char *name, const struct bpf_insn *program, size_t count, char *log, uint32_t log_bytes);

/* Return 0 or an errno. */
int bpf_map_get(int map, const void *key, void *value);
int bpf_map_put(int map, const void *key, const void *value);
int bpf_map_delete(int map, const void *key);
/* Reads up to *count entries after `from` (NULL: the first), whose place it leaves in `next`; ENOENT after the last. */
int bpf_map_get_batch(int map, const uint32_t *from, uint32_t *next, void *keys, void *values, uint32_t *count);

/* A packet with its Ethernet header, through a program of tc-bpf(8). The packet is changed in place. */
struct bpf_trial {
	uint8_t *bytes;
	uint32_t length; /* changed to that of the result */
	uint32_t room;
	struct __sk_buff context; /* cb, gso_size and gso_segs as the program is to see them */
	uint32_t verdict;
};
int bpf_try(int program, struct bpf_trial *trial);

/* Processors for which the values of a map of a processor each are read; 0 with errno if that cannot be known. */
uint32_t bpf_processors(void);

/* Both return 0 or an errno. What a program is attached to keeps it, and it keeps its maps, after they are closed. */
int bpf_attach_tun(int tun, int program);
int bpf_attach_reuseport(int socket, int program);

#endif
