/* See kernel-maps.h. */
#include "kernel-maps.h"
#include "../bpf/kernel-programs.h"
#include "../shared/layout.h"

#include <errno.h>
#include <linux/pkt_cls.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

_Static_assert(KERNEL_PEERS_MAX == PEERS_MAX, "the kernel engine has another number of peers");
_Static_assert(KERNEL_NO_SOURCE_CHECK == FLAG_NO_SOURCE_CHECK, "a flag has another value in the kernel engine");
_Static_assert(KERNEL_NO_DESTINATION_CHECK == FLAG_NO_DESTINATION_CHECK, "a flag has another value in the kernel engine");

#define LOG_BYTES (1u << 20)
#define BATCH 64u

static const struct bpf_map_kind kinds[KERNEL_MAP_COUNT] = {
#define KIND(name, type, key, value, entries, flags) { "tartan_" #name, type, key, value, entries, flags },
	KERNEL_MAPS(KIND)
#undef KIND
};

static bool fail(struct kernel_failure *failure, const char *step, int err)
{
	*failure = (struct kernel_failure){ .step = step, .err = err };
	return false;
}

/* The verifier says at the end of its log what is wrong. */
static void keep_end(struct kernel_failure *failure, const char *log)
{
	const size_t length = strlen(log), room = sizeof failure->log - 1;

	strcpy(failure->log, length > room ? log + length - room : log);
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Copies the program and puts the descriptors of the maps into it. The caller frees it; NULL: no memory. */
static struct bpf_insn *link_program(const struct kernel_path *path, const struct kernel_program *p)
{
	struct bpf_insn *code = malloc(p->count * sizeof *code);

	if (code == NULL)
		return NULL;
	memcpy(code, p->code, p->count * sizeof *code);
	for (size_t i = 0; i < p->relocation_count; i++) {
		const struct kernel_relocation *r = &p->relocations[i];
		struct bpf_insn *load = &code[r->at];
		/* `config` is the address of the only value, and the compiler has put an offset from it here. */
		load->src_reg = r->map == kernel_map_config ? BPF_PSEUDO_MAP_VALUE : BPF_PSEUDO_MAP_FD;
		load[1].imm = r->map == kernel_map_config ? load->imm : 0;
		load->imm = path->maps[r->map];
	}
	return code;
}

/* Puts 0, which means yes, in the place of each call of bpf_check_mtu(). */
static void leave_out_check(struct bpf_insn *code, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (code[i].code == (BPF_JMP | BPF_CALL) && code[i].imm == BPF_FUNC_check_mtu)
			code[i] = (struct bpf_insn)ALU_K(MOV, R0, 0);
	}
}

static int load_program(struct kernel_path *path, enum kernel_program_number which, struct kernel_failure *failure)
{
	const struct kernel_program *p = &kernel_programs[which];
	struct bpf_insn *code = link_program(path, p);
	char *log = NULL;
	int fd = -1;

	fail(failure, p->name, code == NULL ? ENOMEM : 0);
	if (code != NULL)
		fd = bpf_load_filter(p->name, code, p->count, NULL, 0);
	if (code != NULL && fd < 0 && errno == EINVAL) {
		path->sees_missing_link = false;
		leave_out_check(code, p->count);
		fd = bpf_load_filter(p->name, code, p->count, NULL, 0);
	}
	if (code != NULL && fd < 0) {
		failure->err = errno;
		log = calloc(1, LOG_BYTES);
	}
	if (log != NULL) {
		fd = bpf_load_filter(p->name, code, p->count, log, LOG_BYTES);
		keep_end(failure, log);
	}
	free(log);
	free(code);
	return fd;
}

static void *map_memory(int map, size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, map, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

static bool open_all(struct kernel_path *path, struct kernel_failure *failure)
{
	path->processors = bpf_processors();
	if (path->processors == 0)
		return fail(failure, "/sys/devices/system/cpu/possible", errno);
	for (int i = 0; i < KERNEL_MAP_COUNT; i++) {
		path->maps[i] = bpf_create_map(&kinds[i]);
		if (path->maps[i] < 0)
			return fail(failure, kinds[i].name, errno);
	}
	path->config = map_memory(path->maps[kernel_map_config], sizeof *path->config);
	path->peers = map_memory(path->maps[kernel_map_peers], KERNEL_PEERS_MAX * sizeof *path->peers);
	if (path->config == NULL || path->peers == NULL)
		return fail(failure, "mmap of a map", errno);
	path->outbound = load_program(path, kernel_program_outbound, failure);
	if (path->outbound < 0)
		return false;
	path->inbound = load_program(path, kernel_program_inbound, failure);
	return path->inbound >= 0;
}

bool kernel_path_open(struct kernel_path *path, struct kernel_failure *failure)
{
	*path = (struct kernel_path){ .outbound = -1, .inbound = -1, .trial = { -1, -1 }, .sees_missing_link = true };
	for (int i = 0; i < KERNEL_MAP_COUNT; i++)
		path->maps[i] = -1;
	if (open_all(path, failure))
		return true;
	kernel_path_close(path);
	return false;
}

void kernel_path_close(struct kernel_path *path)
{
	if (path->config != NULL)
		munmap((void *)(uintptr_t)path->config, sizeof *path->config);
	if (path->peers != NULL)
		munmap((void *)(uintptr_t)path->peers, KERNEL_PEERS_MAX * sizeof *path->peers);
	path->config = NULL;
	path->peers = NULL;
	close_one(&path->outbound);
	close_one(&path->inbound);
	close_one(&path->trial[0]);
	close_one(&path->trial[1]);
	for (int i = 0; i < KERNEL_MAP_COUNT; i++)
		close_one(&path->maps[i]);
}

/* One more peer has the outer address. */
static int add_endpoint(const struct kernel_path *path, uint32_t address, uint32_t number)
{
	const int map = path->maps[kernel_map_endpoints];
	struct kernel_endpoint e = { 0 };
	const int err = bpf_map_get(map, &address, &e);

	if (err != 0 && err != ENOENT)
		return err;
	e.peer = number;
	e.peers++;
	return bpf_map_put(map, &address, &e);
}

/* The highest number of a peer that has the address and is not `number`; the address is of several, so there is one. */
static uint32_t find_other(const struct kernel_path *path, uint32_t address, uint32_t number)
{
	uint32_t at = KERNEL_PEERS_MAX - 1;

	while (at > 0 && (path->peers[at].remote != address || at == number))
		at--;
	return at;
}

/* One peer less has it. */
static int remove_endpoint(const struct kernel_path *path, uint32_t address, uint32_t number)
{
	const int map = path->maps[kernel_map_endpoints];
	struct kernel_endpoint e;
	const int err = bpf_map_get(map, &address, &e);

	if (err != 0)
		return err == ENOENT ? 0 : err;
	if (e.peers <= 1)
		return bpf_map_delete(map, &address);
	e.peers--;
	if (e.peer == number)
		e.peer = find_other(path, address, number);
	return bpf_map_put(map, &address, &e);
}

void kernel_path_record(struct kernel_path *path, uint32_t number)
{
	volatile uint32_t *state = &path->peers[number].state;

	__atomic_store_n(state, (*state & KERNEL_STATE_MASK) | KERNEL_RECORDS, __ATOMIC_RELEASE);
}

void kernel_path_set_state(struct kernel_path *path, uint32_t number, enum kernel_state state)
{
	volatile struct kernel_peer *peer = &path->peers[number];
	const bool moves = (peer->state & KERNEL_RECORDS) != 0 && (peer->state & KERNEL_STATE_MASK) != state;
	struct timespec now;

	if ((peer->state & ~KERNEL_MOVES) == state)
		return;
	clock_gettime(CLOCK_BOOTTIME, &now);
	peer->moved_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	/* In one word, so that no packet sees the one without the other. */
	__atomic_store_n(&peer->state, state | (moves ? KERNEL_MOVES : 0), __ATOMIC_RELEASE);
}

int kernel_path_set_peer(struct kernel_path *path, uint32_t number, const struct kernel_peer *peer)
{
	volatile struct kernel_peer *p = &path->peers[number];
	const uint32_t before = p->remote;
	int err = 0;

	if (before != peer->remote)
		err = add_endpoint(path, peer->remote, number);
	if (err != 0)
		return err;
	p->remote = peer->remote;
	p->local = peer->local;
	p->mtu = peer->mtu;
	for (int i = 0; i < 4; i++)
		p->identity[i] = peer->identity[i];
	if ((p->state & KERNEL_STATE_MASK) != peer->state)
		kernel_path_set_state(path, number, peer->state);
	return before != 0 && before != peer->remote ? remove_endpoint(path, before, number) : 0;
}

int kernel_path_clear_peer(struct kernel_path *path, uint32_t number)
{
	const uint32_t remote = path->peers[number].remote;
	int err;

	__atomic_store_n(&path->peers[number].state, KERNEL_REFUSE, __ATOMIC_RELEASE);
	path->peers[number].remote = 0;
	err = remote != 0 ? remove_endpoint(path, remote, number) : 0;
	memset((void *)(uintptr_t)&path->peers[number], 0, sizeof *path->peers);
	if (err != 0)
		return err;
	err = bpf_map_delete(path->maps[kernel_map_traffic], &number);
	return err == ENOENT ? 0 : err;
}

int kernel_path_set_prefix(struct kernel_path *path, struct kernel_prefix prefix, uint32_t number)
{
	return bpf_map_put(path->maps[kernel_map_prefixes], &prefix, &number);
}

int kernel_path_remove_prefix(struct kernel_path *path, struct kernel_prefix prefix)
{
	const int err = bpf_map_delete(path->maps[kernel_map_prefixes], &prefix);

	return err == ENOENT ? 0 : err;
}

int kernel_path_counters(const struct kernel_path *path, struct kernel_counters *sum)
{
	struct kernel_counters *each = calloc(path->processors, sizeof *each);
	const uint32_t first = 0;

	if (each == NULL)
		return ENOMEM;
	const int err = bpf_map_get(path->maps[kernel_map_counters], &first, each);
	*sum = (struct kernel_counters){ 0 };
	for (uint32_t cpu = 0; cpu < path->processors; cpu++) {
		for (int i = 0; i < COUNTER_COUNT; i++)
			sum->of[i] += each[cpu].of[i];
	}
	free(each);
	return err;
}

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static struct kernel_traffic sum_traffic(const struct kernel_traffic *each, uint32_t processors)
{
	struct kernel_traffic sum = { 0 };

	for (const struct kernel_traffic *t = each; t < each + processors; t++) {
		sum.sent_packets += t->sent_packets;
		sum.sent_bytes += t->sent_bytes;
		sum.received_packets += t->received_packets;
		sum.received_bytes += t->received_bytes;
		sum.sent_ns = later(sum.sent_ns, t->sent_ns);
		sum.heard_ns = later(sum.heard_ns, t->heard_ns);
		if (t->answered_ns <= sum.answered_ns)
			continue;
		sum.answered_ns = t->answered_ns;
		sum.answered_sequence = t->answered_sequence;
		sum.answered_opaque = t->answered_opaque;
	}
	return sum;
}

int kernel_path_traffic(const struct kernel_path *path,
			bool (*row)(void *context, uint32_t number, const struct kernel_traffic *sum), void *context)
{
	struct kernel_traffic *each = calloc((size_t)BATCH * path->processors, sizeof *each);
	uint32_t keys[BATCH], place, count = BATCH;
	int err = each == NULL ? ENOMEM : 0;
	bool goes_on = true;

	for (const uint32_t *from = NULL; err == 0 && goes_on; from = &place, count = BATCH) {
		err = bpf_map_get_batch(path->maps[kernel_map_traffic], from, &place, keys, each, &count);
		for (uint32_t i = 0; i < count && goes_on; i++) {
			const struct kernel_traffic sum = sum_traffic(&each[(size_t)i * path->processors], path->processors);
			goes_on = row(context, keys[i], &sum);
		}
	}
	free(each);
	return err == ENOENT ? 0 : err;
}

static int open_trial(struct kernel_path *path, enum kernel_direction direction, struct kernel_failure *failure)
{
	static const enum kernel_program_number programs[] = { kernel_program_outbound_test, kernel_program_inbound_test };
	int *program = &path->trial[direction];

	if (*program < 0)
		*program = load_program(path, programs[direction], failure);
	return *program;
}

bool kernel_path_try(struct kernel_path *path, enum kernel_direction direction, struct bpf_trial *trial,
		     const struct kernel_key *key, struct kernel_failure *failure)
{
	const int program = open_trial(path, direction, failure);

	if (program < 0)
		return false;
	if (key != NULL) {
		trial->context.cb[0] = key->remote;
		trial->context.cb[1] = key->local;
		trial->context.cb[2] = key->vni;
	}
	const int err = bpf_try(program, trial);
	if (err != 0)
		return fail(failure, "bpf(BPF_PROG_TEST_RUN)", err);
	return trial->verdict != TC_ACT_STOLEN || fail(failure, "bpf_skb_set_tunnel_key", EPROTONOSUPPORT);
}

bool kernel_path_chooses_source(struct kernel_path *path, bool *chooses, struct kernel_failure *failure)
{
	uint8_t packet[64] = { [12] = 0x08, [14] = 0x45 };
	struct bpf_trial trial = { .bytes = packet, .length = sizeof packet, .room = sizeof packet };
	const int program = open_trial(path, KERNEL_INBOUND, failure);

	trial.context.cb[3] = 1;
	const int err = program < 0 ? 0 : bpf_try(program, &trial);
	*chooses = trial.verdict == TC_ACT_OK;
	return program >= 0 && (err == 0 || fail(failure, "bpf(BPF_PROG_TEST_RUN)", err));
}
