/*
 * Sparse flows apart from bulk ones, by two small BPF programs. Queue n is for the bulk flows of lane n, the one after
 * the last lane for the sparse flows of all.
 *
 * TUN (TUNSETSTEERINGEBPF), about packets that leave: a flow is sparse until it has sent FLOW_BURST bytes faster than
 * they drain from its bucket; then it is bulk until it was silent for QUIET_NS, by when the bulk queue was read past
 * its last packet unless the machine is starved. It is never a packet that is judged, always its flow: none passes an
 * earlier one.
 *
 * Sockets of one address (SO_ATTACH_REUSEPORT_EBPF), about datagrams that arrive: the sender has judged, and said so in
 * the TOS of the outer packet. No judgement is made here, because what arrives is several datagrams that the kernel has
 * merged, of any flows of one peer but of one TOS. A peer that marks nothing has bulk flows only.
 *
 * Sources: bpf(2), Documentation/bpf/standardization/instruction-set.rst, socket(7), linux/if_tun.h, linux/filter.h.
 */
#include "../shared/layout.h"
#include "addon.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/if_tun.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Flows that share a bucket share their fate, which costs the sparse one of them time and nothing else. */
#define BUCKETS 4096
#define FLOW_BURST 65536
/* What a packet costs beside its bytes: a flood of small ones is a bulk flow too. */
#define PACKET_COST 256
/* A bucket loses a byte every 2^6 ns: 125 Mbit/s, what an old network carried. */
#define DRAIN_SHIFT 6
/* Ten times what was seen to wait in a bulk queue while its thread got no processor. */
#define QUIET_NS 1000000000

struct bucket {
	uint64_t last_ns; /* when the last packet came */
	uint64_t bytes;
	uint32_t is_bulk;
	uint32_t reserved;
};

#define LAST ((int16_t)offsetof(struct bucket, last_ns))
#define BYTES ((int16_t)offsetof(struct bucket, bytes))
#define IS_BULK ((int16_t)offsetof(struct bucket, is_bulk))

enum { R0, R1, R2, R3, R4, CONTEXT = 6, HASH = 7, BUCKET = 8, SPARE = 9, FRAME = 10 };

#define INSN(c, d, s, o, i) { .code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (int32_t)(i) }
#define ALU(op, d, s) INSN(BPF_ALU64 | BPF_X | BPF_##op, d, s, 0, 0)
#define ALU_K(op, d, i) INSN(BPF_ALU64 | BPF_K | BPF_##op, d, 0, 0, i)
#define LOAD(size, d, s, o) INSN(BPF_LDX | BPF_MEM | BPF_##size, d, s, o, 0)
#define STORE(size, d, o, s) INSN(BPF_STX | BPF_MEM | BPF_##size, d, s, o, 0)
/* Of the packet, into R0 in host order; past its end the program ends with queue 0. Spoils R1 to R5. */
#define PACKET(size, at) INSN(BPF_LD | BPF_ABS | BPF_##size, 0, 0, 0, at)
#define PACKET_AT(size, r) INSN(BPF_LD | BPF_IND | BPF_##size, 0, r, 0, 0)
/* To a label, which resolve() turns into a distance. */
#define JUMP(op, d, s, label) INSN(BPF_JMP | BPF_X | BPF_##op, d, s, label, 0)
#define JUMP_K(op, d, i, label) INSN(BPF_JMP | BPF_K | BPF_##op, d, 0, label, i)
#define CALL(function) INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_##function)
#define EXIT INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
#define NO_CODE 0xff /* no instruction has it */
#define LABEL(label) INSN(NO_CODE, 0, 0, label, 0)
#define HASH_IN(r) ALU_K(MUL, HASH, 0x9e3779b1), ALU(ADD, HASH, r)

enum { HASHED = 1, IN_ORDER, SPARSE_SO_FAR, DRAINED, BULK, END, SPARSE, LABELS };

/* Takes the labels out; returns how many instructions are left. */
static uint32_t resolve(struct bpf_insn *program, size_t count)
{
	int16_t at[LABELS] = { 0 };
	uint32_t left = 0;

	for (size_t i = 0; i < count; i++) {
		if (program[i].code == NO_CODE)
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

static long bpf(enum bpf_cmd command, union bpf_attr *attributes)
{
	return syscall(SYS_bpf, command, attributes, sizeof *attributes);
}

static int make_buckets(void)
{
	union bpf_attr a = { .map_type = BPF_MAP_TYPE_ARRAY,
			     .key_size = sizeof(uint32_t),
			     .value_size = sizeof(struct bucket),
			     .max_entries = BUCKETS };

	return (int)bpf(BPF_MAP_CREATE, &a);
}

/* Gives the labels' places and has the kernel verify it. Returns a descriptor or -1. */
static int load(struct bpf_insn *program, size_t count)
{
	union bpf_attr a = { .prog_type = BPF_PROG_TYPE_SOCKET_FILTER,
			     .insns = (uintptr_t)program,
			     .insn_cnt = resolve(program, count),
			     .license = (uintptr_t) "Apache-2.0" };

	return (int)bpf(BPF_PROG_LOAD, &a);
}

/* On the program's stack: the number of its bucket, and how many lanes there are. */
#define AT_KEY (-4)
#define AT_LANES (-8)

static const struct bpf_insn find_flow[] = {
	/*
	 * Addresses, protocol, and the ports of TCP. UDP goes without them: a flow may have datagrams that are cut into
	 * fragments, of which only the first has ports, among others that are not, and is one flow all the same.
	 */
	PACKET(W, 12),
	ALU(MOV, HASH, R0),
	PACKET(W, 16),
	HASH_IN(R0),
	PACKET(B, 9),
	HASH_IN(R0),
	ALU(MOV, SPARE, R0),
	PACKET(H, 6),
	ALU_K(AND, R0, 0x3fff),
	JUMP_K(JNE, R0, 0, HASHED),
	JUMP_K(JNE, SPARE, IPPROTO_TCP, HASHED),
	PACKET(B, 0),
	ALU(MOV, SPARE, R0),
	ALU_K(AND, SPARE, 15),
	ALU_K(LSH, SPARE, 2),
	PACKET_AT(W, SPARE),
	HASH_IN(R0),
	LABEL(HASHED),
	ALU(MOV, SPARE, HASH),
	ALU_K(RSH, SPARE, 32),
	ALU(XOR, HASH, SPARE),
	ALU_K(MUL, HASH, 0x9e3779b1),
	ALU(MOV, SPARE, HASH),
	ALU_K(RSH, SPARE, 32),
	LOAD(W, R1, FRAME, AT_LANES),
	ALU(MOD, SPARE, R1),
	ALU_K(RSH, HASH, 16),
	ALU_K(AND, HASH, BUCKETS - 1),
	STORE(W, FRAME, AT_KEY, HASH),
};

/* R1 is the map. */
static const struct bpf_insn judge_flow[] = {
	ALU(MOV, R2, FRAME),
	ALU_K(ADD, R2, AT_KEY),
	CALL(map_lookup_elem),
	JUMP_K(JEQ, R0, 0, END), /* cannot be, but the verifier does not know */
	ALU(MOV, BUCKET, R0),
	CALL(ktime_get_ns),
	LOAD(DW, R2, BUCKET, LAST),
	STORE(DW, BUCKET, LAST, R0),
	ALU(MOV, R1, R0),
	ALU(SUB, R1, R2),
	JUMP_K(JSGE, R1, 0, IN_ORDER), /* another processor may have been later */
	ALU_K(MOV, R1, 0),
	LABEL(IN_ORDER),
	LOAD(W, R3, BUCKET, IS_BULK),
	JUMP_K(JEQ, R3, 0, SPARSE_SO_FAR),
	JUMP_K(JLT, R1, QUIET_NS, BULK),
	ALU_K(MOV, R3, 0),
	STORE(W, BUCKET, IS_BULK, R3),
	STORE(DW, BUCKET, BYTES, R3),
	LABEL(SPARSE_SO_FAR),
	LOAD(DW, R3, BUCKET, BYTES),
	ALU_K(RSH, R1, DRAIN_SHIFT),
	JUMP(JGE, R3, R1, DRAINED),
	ALU(MOV, R1, R3),
	LABEL(DRAINED),
	ALU(SUB, R3, R1),
	LOAD(W, R4, CONTEXT, (int16_t)offsetof(struct __sk_buff, len)),
	ALU(ADD, R3, R4),
	ALU_K(ADD, R3, PACKET_COST),
	STORE(DW, BUCKET, BYTES, R3),
	LOAD(W, R0, FRAME, AT_LANES),
	JUMP_K(JLE, R3, FLOW_BURST, END),
	ALU_K(MOV, R1, 1),
	STORE(W, BUCKET, IS_BULK, R1),
	LABEL(BULK),
	ALU(MOV, R0, SPARE),
	LABEL(END),
	EXIT,
};

static int load_for_tun(int buckets, uint32_t lanes)
{
	const struct bpf_insn begin[] = {
		ALU(MOV, CONTEXT, R1),
		ALU_K(MOV, R0, lanes),
		STORE(W, FRAME, AT_LANES, R0),
	};
	const struct bpf_insn map[] = {
		INSN(BPF_LD | BPF_DW | BPF_IMM, R1, BPF_PSEUDO_MAP_FD, 0, buckets),
		INSN(0, 0, 0, 0, 0),
	};
	struct bpf_insn program[sizeof(begin) / sizeof(begin[0]) + sizeof(find_flow) / sizeof(find_flow[0]) +
				sizeof(map) / sizeof(map[0]) + sizeof(judge_flow) / sizeof(judge_flow[0])];
	uint8_t *at = (uint8_t *)program;

	at = mempcpy(at, begin, sizeof begin);
	at = mempcpy(at, find_flow, sizeof find_flow);
	at = mempcpy(at, map, sizeof map);
	mempcpy(at, judge_flow, sizeof judge_flow);
	return load(program, sizeof program / sizeof program[0]);
}

/* The sockets see the datagram from its payload on; what is before it is found from the start of the outer header. */
static int load_for_udp(uint32_t lanes)
{
	struct bpf_insn program[] = {
		ALU(MOV, CONTEXT, R1),
		PACKET(W, SKF_NET_OFF + 12),
		ALU(MOV, SPARE, R0),
		ALU_K(MUL, SPARE, 0x9e3779b1),
		ALU_K(RSH, SPARE, 24),
		ALU_K(AND, SPARE, 0xffff),
		ALU_K(MOD, SPARE, lanes),
		PACKET(B, SKF_NET_OFF + 1),
		ALU_K(AND, R0, 0xfc), /* RFC 3168: the other two bits are the network's */
		JUMP_K(JEQ, R0, SPARSE_TOS, SPARSE),
		ALU(MOV, R0, SPARE),
		EXIT,
		LABEL(SPARSE),
		ALU_K(MOV, R0, lanes),
		EXIT,
	};

	return load(program, sizeof program / sizeof program[0]);
}

/* Returns 0 or an errno, with the call. What a program is attached to keeps it, and it its buckets. */
static int steer_packets_of_tun(int fd, uint32_t lanes, const char **step)
{
	*step = "bpf(BPF_MAP_CREATE)";
	int buckets = make_buckets();
	if (buckets < 0)
		return errno;
	*step = "bpf(BPF_PROG_LOAD)";
	int program = load_for_tun(buckets, lanes);
	int err = program < 0 ? errno : 0;
	close(buckets);
	if (err != 0)
		return err;
	*step = "TUNSETSTEERINGEBPF";
	if (ioctl(fd, TUNSETSTEERINGEBPF, &program) < 0)
		err = errno;
	close(program);
	return err;
}

static int steer_datagrams(int fd, uint32_t lanes, const char **step)
{
	*step = "bpf(BPF_PROG_LOAD)";
	int program = load_for_udp(lanes);
	if (program < 0)
		return errno;
	*step = "SO_ATTACH_REUSEPORT_EBPF";
	int err = setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &program, sizeof program) < 0 ? errno : 0;
	close(program);
	return err;
}

static napi_value steer(napi_env env, napi_callback_info info, int (*attach)(int, uint32_t, const char **))
{
	napi_value argv[2];
	const char *step;
	uint32_t lanes;
	int fd;

	if (!read_arguments(env, info, 2, argv) || !read_descriptor(env, argv[0], &fd) ||
	    !read_u32(env, argv[1], "lanes", &lanes))
		return NULL;
	if (lanes < 1 || lanes >= QUEUES_MAX)
		return throw_type(env, "lanes", "a number from 1 to one less than the queues of a link");
	int err = attach(fd, lanes, &step);
	return err == 0 ? NULL : throw_errno(env, err, step, NULL);
}

static napi_value steer_tun(napi_env env, napi_callback_info info)
{
	return steer(env, info, steer_packets_of_tun);
}

static napi_value steer_udp(napi_env env, napi_callback_info info)
{
	return steer(env, info, steer_datagrams);
}

void steering_init(napi_env env, napi_value exports)
{
	add_function(env, exports, "steerTun", steer_tun);
	add_function(env, exports, "steerUdp", steer_udp);
}
