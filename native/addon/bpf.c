/* See bpf.h. */
#include "bpf.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOAD_ATTEMPTS 10

static int bpf(enum bpf_cmd command, union bpf_attr *attributes)
{
	return (int)syscall(SYS_bpf, command, attributes, sizeof *attributes);
}

/* An initialiser leaves what is beyond the named member undefined, and the kernel refuses what is not zero there. */
static void clear(union bpf_attr *attributes)
{
	memset(attributes, 0, sizeof *attributes);
}

int bpf_create_map(const struct bpf_map_kind *kind)
{
	union bpf_attr a;

	clear(&a);
	a.map_type = kind->type;
	a.key_size = kind->key_bytes;
	a.value_size = kind->value_bytes;
	a.max_entries = kind->entries;
	a.map_flags = kind->flags;
	strncpy(a.map_name, kind->name, sizeof a.map_name - 1);

	return bpf(BPF_MAP_CREATE, &a);
}

int bpf_create_array(uint32_t value_bytes, uint32_t entries)
{
	return bpf_create_map(&(struct bpf_map_kind){ "steering", BPF_MAP_TYPE_ARRAY, 4, value_bytes, entries, 0 });
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

/* The verifier gives up when a signal comes. */
static int load(union bpf_attr *a)
{
	for (int attempt = 1;; attempt++) {
		int fd = bpf(BPF_PROG_LOAD, a);
		if (fd >= 0 || errno != EAGAIN || attempt == LOAD_ATTEMPTS)
			return fd;
	}
}

int bpf_load(struct bpf_insn *program, size_t count)
{
	union bpf_attr a;

	clear(&a);
	a.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
	a.insns = (uintptr_t)program;
	a.insn_cnt = resolve(program, count);
	a.license = (uintptr_t) "Apache-2.0";

	return load(&a);
}

int bpf_load_filter(const char *name, const struct bpf_insn *program, size_t count, char *log, uint32_t log_bytes)
{
	union bpf_attr a;

	clear(&a);
	a.prog_type = BPF_PROG_TYPE_SCHED_CLS;
	a.insns = (uintptr_t)program;
	a.insn_cnt = (uint32_t)count;
	a.license = (uintptr_t) "GPL";
	a.log_level = log != NULL;
	a.log_buf = (uintptr_t)log;
	a.log_size = log != NULL ? log_bytes : 0;
	strncpy(a.prog_name, name, sizeof a.prog_name - 1);

	return load(&a);
}

static int on_entry(enum bpf_cmd command, int map, const void *key, const void *value)
{
	union bpf_attr a;

	clear(&a);
	a.map_fd = (uint32_t)map;
	a.key = (uintptr_t)key;
	a.value = (uintptr_t)value;

	return bpf(command, &a) < 0 ? errno : 0;
}

int bpf_map_get(int map, const void *key, void *value)
{
	return on_entry(BPF_MAP_LOOKUP_ELEM, map, key, value);
}

int bpf_map_put(int map, const void *key, const void *value)
{
	return on_entry(BPF_MAP_UPDATE_ELEM, map, key, value);
}

int bpf_map_delete(int map, const void *key)
{
	return on_entry(BPF_MAP_DELETE_ELEM, map, key, NULL);
}

int bpf_map_get_batch(int map, const uint32_t *from, uint32_t *next, void *keys, void *values, uint32_t *count)
{
	union bpf_attr a;

	clear(&a);
	a.batch.map_fd = (uint32_t)map;
	a.batch.in_batch = (uintptr_t)from;
	a.batch.out_batch = (uintptr_t)next;
	a.batch.keys = (uintptr_t)keys;
	a.batch.values = (uintptr_t)values;
	a.batch.count = *count;
	const int err = bpf(BPF_MAP_LOOKUP_BATCH, &a) < 0 ? errno : 0;
	*count = err == 0 || err == ENOENT ? a.batch.count : 0;
	return err;
}

int bpf_try(int program, struct bpf_trial *t)
{
	union bpf_attr a;

	clear(&a);
	a.test.prog_fd = (uint32_t)program;
	a.test.data_in = a.test.data_out = (uintptr_t)t->bytes;
	a.test.data_size_in = t->length;
	a.test.data_size_out = t->room;
	a.test.ctx_in = (uintptr_t)&t->context;
	a.test.ctx_size_in = sizeof t->context;
	if (bpf(BPF_PROG_TEST_RUN, &a) < 0)
		return errno;
	t->verdict = a.test.retval;
	t->length = a.test.data_size_out;
	return 0;
}

uint32_t bpf_processors(void)
{
	char text[256];
	const int fd = open("/sys/devices/system/cpu/possible", O_RDONLY | O_CLOEXEC);
	const ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	const int err = errno;

	if (fd >= 0)
		close(fd);
	errno = err;
	if (n <= 0)
		return 0;
	text[n] = '\0';
	/* Ranges such as 0-3; the last number is the highest one. */
	const char *at = text + strcspn(text, "\n");
	while (at > text && at[-1] >= '0' && at[-1] <= '9')
		at--;
	return (uint32_t)strtoul(at, NULL, 10) + 1;
}

int bpf_attach_tun(int tun, int program)
{
	return ioctl(tun, TUNSETSTEERINGEBPF, &program) < 0 ? errno : 0;
}

int bpf_attach_reuseport(int socket, int program)
{
	return setsockopt(socket, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &program, sizeof program) < 0 ? errno : 0;
}
