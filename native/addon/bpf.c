/* See bpf.h. */
#include "bpf.h"

#include <errno.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int bpf(enum bpf_cmd command, union bpf_attr *attributes)
{
	return (int)syscall(SYS_bpf, command, attributes, sizeof *attributes);
}

/* An initialiser leaves what is beyond the named member undefined, and the kernel refuses what is not zero there. */
static void clear(union bpf_attr *attributes)
{
	memset(attributes, 0, sizeof *attributes);
}

int bpf_create_array(uint32_t value_bytes, uint32_t entries)
{
	union bpf_attr a;

	clear(&a);
	a.map_type = BPF_MAP_TYPE_ARRAY;
	a.key_size = sizeof(uint32_t);
	a.value_size = value_bytes;
	a.max_entries = entries;

	return bpf(BPF_MAP_CREATE, &a);
}

/* Removes the labels from the program; returns how many instructions are left. */
static uint32_t resolve(struct bpf_insn *program, size_t count)
{
	int16_t at[LABELS_MAX] = { 0 };
	uint32_t left = 0;

	for (size_t i = 0; i < count; i++) {
		if (program[i].code == LABEL_CODE)
			at[program[i].off] = (int16_t)left;
		else
			program[left++] = program[i];
	}
	for (uint32_t i = 0; i < left; i++) {
		uint8_t operation = BPF_OP(program[i].code);
		if (BPF_CLASS(program[i].code) == BPF_JMP && operation != BPF_CALL && operation != BPF_EXIT)
			program[i].off = (int16_t)(at[program[i].off] - (int16_t)i - 1);
	}
	return left;
}

int bpf_load(struct bpf_insn *program, size_t count)
{
	union bpf_attr a;

	clear(&a);
	a.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
	a.insns = (uintptr_t)program;
	a.insn_cnt = resolve(program, count);
	a.license = (uintptr_t) "Apache-2.0";

	return bpf(BPF_PROG_LOAD, &a);
}

int bpf_attach_tun(int tun, int program)
{
	return ioctl(tun, TUNSETSTEERINGEBPF, &program) < 0 ? errno : 0;
}

int bpf_attach_reuseport(int socket, int program)
{
	return setsockopt(socket, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &program, sizeof program) < 0 ? errno : 0;
}
