/*
 * Steering: keeps sparse flows apart from bulk flows, by two BPF programs. Queue n is for the bulk flows of lane n, and
 * the queue after the last lane for all sparse flows.
 *
 * The program of the TUN judges the packets that leave. A flow is sparse until it has sent FLOW_BURST bytes faster than
 * they drain from its bucket. Then it is bulk until it was silent for QUIET_NS; by then the bulk queue has been read
 * past its last packet, unless the machine is starved. The program judges flows and never single packets, so no packet
 * overtakes an earlier one of its flow.
 *
 * The program of the UDP sockets deals out the datagrams that arrive. The sender has judged already and has written the
 * result into the TOS of the outer packet. This side does not judge again, because the kernel merges datagrams of
 * several flows of one peer, if their TOS is the same. A peer that marks nothing has bulk flows only.
 */
#include "../shared/layout.h"
#include "addon.h"
#include "bpf.h"

#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <string.h>
#include <unistd.h>

/* Flows in one bucket are judged together. A sparse flow beside a bulk one is slower then, and nothing else. */
#define BUCKETS 4096
#define FLOW_BURST 65536
/* Added to the bytes of each packet: a flood of small packets is a bulk flow too. */
#define PACKET_COST 256
/* A byte drains in 2^6 ns, which is 125 Mbit/s. */
#define DRAIN_SHIFT 6
/* Ten times the longest time that a bulk queue was seen to wait while its thread got no processor. */
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

/* The registers that keep their values over a load from the packet. */
enum { CONTEXT = R6, HASH = R7, BUCKET = R8, SCRATCH = R9 };

enum { HASHED = 1, IN_ORDER, SPARSE_SO_FAR, DRAINED, BULK, END, SPARSE };

#define AT(field) offsetof(struct iphdr, field)
#define HASH_IN(r) ALU_K(MUL, HASH, 0x9e3779b1), ALU(ADD, HASH, r)

/* On the stack of the program: the number of its bucket, and how many lanes there are. */
#define AT_KEY (-4)
#define AT_LANES (-8)

static const struct bpf_insn find_flow[] = {
	/*
	 * A flow is addresses, protocol and the ports of TCP. The ports of UDP are left out: some datagrams of a flow
	 * may be fragmented, and only the first fragment has ports, but all of them are one flow.
	 */
	PACKET(W, AT(saddr)),
	ALU(MOV, HASH, R0),
	PACKET(W, AT(daddr)),
	HASH_IN(R0),
	PACKET(B, AT(protocol)),
	HASH_IN(R0),
	ALU(MOV, SCRATCH, R0),
	PACKET(H, AT(frag_off)),
	ALU_K(AND, R0, IP_MF | IP_OFFMASK),
	JUMP_K(JNE, R0, 0, HASHED),
	JUMP_K(JNE, SCRATCH, IPPROTO_TCP, HASHED),
	PACKET(B, 0),
	ALU(MOV, SCRATCH, R0),
	ALU_K(AND, SCRATCH, 15),
	ALU_K(LSH, SCRATCH, 2),
	PACKET_AT(W, SCRATCH),
	HASH_IN(R0),
	LABEL(HASHED),
	ALU(MOV, SCRATCH, HASH),
	ALU_K(RSH, SCRATCH, 32),
	ALU(XOR, HASH, SCRATCH),
	ALU_K(MUL, HASH, 0x9e3779b1),
	ALU(MOV, SCRATCH, HASH),
	ALU_K(RSH, SCRATCH, 32),
	LOAD(W, R1, FRAME, AT_LANES),
	ALU(MOD, SCRATCH, R1),
	ALU_K(RSH, HASH, 16),
	ALU_K(AND, HASH, BUCKETS - 1),
	STORE(W, FRAME, AT_KEY, HASH),
};

/* R1 is the map of buckets. */
static const struct bpf_insn judge_flow[] = {
	ALU(MOV, R2, FRAME),
	ALU_K(ADD, R2, AT_KEY),
	CALL(map_lookup_elem),
	JUMP_K(JEQ, R0, 0, END), /* never happens, but the verifier demands it */
	ALU(MOV, BUCKET, R0),
	CALL(ktime_get_ns),
	LOAD(DW, R2, BUCKET, LAST),
	STORE(DW, BUCKET, LAST, R0),
	ALU(MOV, R1, R0),
	ALU(SUB, R1, R2),
	JUMP_K(JSGE, R1, 0, IN_ORDER), /* another processor may have stored a later time */
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
	ALU(MOV, R0, SCRATCH),
	LABEL(END),
	EXIT,
};

static int load_for_tun(uint32_t lanes, const char **step)
{
	*step = "bpf(BPF_MAP_CREATE)";
	const int buckets = bpf_create_array(sizeof(struct bucket), BUCKETS);
	if (buckets < 0)
		return -1;
	const struct bpf_insn begin[] = {
		ALU(MOV, CONTEXT, R1),
		ALU_K(MOV, R0, lanes),
		STORE(W, FRAME, AT_LANES, R0),
	};
	const struct bpf_insn map[] = {
		INSN(BPF_LD | BPF_DW | BPF_IMM, R1, BPF_PSEUDO_MAP_FD, 0, buckets),
		INSN(0, 0, 0, 0, 0),
	};
	struct bpf_insn program[(sizeof begin + sizeof find_flow + sizeof map + sizeof judge_flow) / sizeof begin[0]];
	uint8_t *at = (uint8_t *)program;

	at = mempcpy(at, begin, sizeof begin);
	at = mempcpy(at, find_flow, sizeof find_flow);
	at = mempcpy(at, map, sizeof map);
	mempcpy(at, judge_flow, sizeof judge_flow);
	*step = "bpf(BPF_PROG_LOAD)";
	const int fd = bpf_load(program, sizeof program / sizeof program[0]), err = errno;
	close(buckets);
	errno = err;
	return fd;
}

/* The packet of a UDP socket starts at the payload. SKF_NET_OFF makes an offset count from the outer IPv4 header. */
static int load_for_udp(uint32_t lanes, const char **step)
{
	struct bpf_insn program[] = {
		ALU(MOV, CONTEXT, R1),
		PACKET(W, SKF_NET_OFF + (int)AT(saddr)),
		ALU(MOV, SCRATCH, R0),
		ALU_K(MUL, SCRATCH, 0x9e3779b1),
		ALU_K(RSH, SCRATCH, 24),
		ALU_K(AND, SCRATCH, 0xffff),
		ALU_K(MOD, SCRATCH, lanes),
		PACKET(B, SKF_NET_OFF + (int)AT(tos)),
		ALU_K(AND, R0, 0xfc), /* the other two bits are for ECN (RFC 3168) */
		JUMP_K(JEQ, R0, SPARSE_TOS, SPARSE),
		ALU(MOV, R0, SCRATCH),
		EXIT,
		LABEL(SPARSE),
		ALU_K(MOV, R0, lanes),
		EXIT,
	};

	*step = "bpf(BPF_PROG_LOAD)";
	return bpf_load(program, sizeof program / sizeof program[0]);
}

/* One of the two programs: how it is loaded and where it is attached. */
struct steering {
	int (*load)(uint32_t lanes, const char **step); /* returns a descriptor, or -1 with errno */
	int (*attach)(int fd, int program);
	const char *attach_step;
};

static napi_value steer(napi_env env, napi_callback_info info, const struct steering *s)
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
	const int program = s->load(lanes, &step);
	if (program < 0)
		return throw_errno(env, errno, step, NULL);
	const int err = s->attach(fd, program);
	close(program);
	return err == 0 ? NULL : throw_errno(env, err, s->attach_step, NULL);
}

static napi_value steer_tun(napi_env env, napi_callback_info info)
{
	return steer(env, info, &(struct steering){ load_for_tun, bpf_attach_tun, "TUNSETSTEERINGEBPF" });
}

static napi_value steer_udp(napi_env env, napi_callback_info info)
{
	return steer(env, info, &(struct steering){ load_for_udp, bpf_attach_reuseport, "SO_ATTACH_REUSEPORT_EBPF" });
}

void steering_init(napi_env env, napi_value exports)
{
	add_function(env, exports, "steerTun", steer_tun);
	add_function(env, exports, "steerUdp", steer_udp);
}
