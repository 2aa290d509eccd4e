/*
 * Steering: keeps sparse, bulk and dense flows apart, by two BPF programs. Queue n is for the bulk flows of lane n, that
 * of the last lane for dense flows if there are several lanes, and the queue after the last lane for all sparse flows.
 *
 * The program of the TUN judges the packets that leave. A flow is sparse until it has sent FLOW_BURST bytes faster than
 * they drain from its bucket. Then it is bulk or dense until it was silent for QUIET_NS; by then that queue has been read
 * past its last packet, unless the machine is starved. The program judges flows and never single packets, so no packet
 * overtakes an earlier one of its flow.
 *
 * A dense flow is one of small packets, which cost as much as large ones: what a TUN takes its sender does not pay for,
 * so a flood of them would take the queue and the processor of all others. TCP gives way when it loses packets, so it is
 * bulk unless its packets are tiny. A dense flow loses what is too much in its own queue, and its threads come after the
 * others.
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

/*
 * Flows in one bucket are judged together. A sparse flow beside another one is slower then, and nothing else. Each source
 * has buckets of its own, TCP apart from all else: however many flows one container makes, those of others are judged
 * by themselves. The last octet tells the sources of a host apart, because a lease has 256 addresses as a rule.
 */
#define SOURCES 256
#define GROUPS (2 * SOURCES)
#define GROUP_SHIFT 6
#define GROUP_FLOWS (1 << GROUP_SHIFT)
#define FLOWS (GROUPS * GROUP_FLOWS)
/* Each group has one more bucket, for its sparse flows together. */
#define BUCKETS (FLOWS + GROUPS)
#define FLOW_BURST 65536
/* Added to the bytes of each packet: a flood of small packets is no sparse flow. */
#define PACKET_COST 256
/* A byte drains in 2^6 ns, which is 125 Mbit/s. */
#define DRAIN_SHIFT 6
/* Ten times the longest time that a bulk queue was seen to wait while its thread got no processor. */
#define QUIET_NS 1000000000
/* No packet is so long that the kernel did not join: its sender leaves many at once to the link. */
#define JOINED_BYTES 2048
/* TCP whose packets are shorter on average does not fill its segments. */
#define SEGMENT_BYTES 512

struct bucket {
	uint64_t last_ns; /* when the last packet came */
	uint64_t bytes;
	uint32_t kind;    /* enum kind */
	uint32_t average; /* bytes of a packet, lately */
};

enum kind { KIND_SPARSE, KIND_BULK, KIND_DENSE, KIND_CROWD };

#define LAST ((int16_t)offsetof(struct bucket, last_ns))
#define BYTES ((int16_t)offsetof(struct bucket, bytes))
#define KIND ((int16_t)offsetof(struct bucket, kind))
#define AVERAGE ((int16_t)offsetof(struct bucket, average))
#define LENGTH ((int16_t)offsetof(struct __sk_buff, len))

/* The registers that keep their values over a load from the packet. */
enum { CONTEXT = R6, HASH = R7, BUCKET = R8, GROUP = BUCKET, SCRATCH = R9 };

enum { HASHED = 1, IN_ORDER, QUIET, YOUNG, DRAINED, BEGUN, CROWD, SHARED_IN_ORDER, SHARED_DRAINED, FITS, FAST, CHOOSE, DENSE,
       BULK, JUDGED, CROWDED, END, SPARSE };

#define AT(field) offsetof(struct iphdr, field)
#define HASH_IN(r) ALU_K(MUL, HASH, 0x9e3779b1), ALU(ADD, HASH, r)

/* On the stack of the program: the number of a bucket, the time, the group, and what the number of lanes decides. */
#define AT_KEY (-4)
#define AT_GROUP (-8)
#define AT_NOW (-16)
#define AT_BULK_LANES (-20)
#define AT_DENSE_QUEUE (-24)
#define AT_SPARSE_QUEUE (-28)

static const struct bpf_insn find_flow[] = {
	/*
	 * A flow is addresses, protocol and the ports of TCP. The ports of UDP are left out: some datagrams of a flow
	 * may be fragmented, and only the first fragment has ports, but all of them are one flow.
	 */
	PACKET(W, AT(saddr)),
	ALU(MOV, HASH, R0),
	ALU(MOV, GROUP, R0),
	ALU_K(AND, GROUP, SOURCES - 1),
	ALU_K(LSH, GROUP, 1),
	PACKET(W, AT(daddr)),
	HASH_IN(R0),
	PACKET(B, AT(protocol)),
	HASH_IN(R0),
	JUMP_K(JNE, R0, IPPROTO_TCP, HASHED),
	ALU_K(OR, GROUP, 1),
	PACKET(H, AT(frag_off)),
	ALU_K(AND, R0, IP_MF | IP_OFFMASK),
	JUMP_K(JNE, R0, 0, HASHED),
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
	LOAD(W, R1, FRAME, AT_BULK_LANES),
	ALU(MOD, SCRATCH, R1),
	STORE(W, FRAME, AT_GROUP, GROUP),
	ALU_K(LSH, GROUP, GROUP_SHIFT),
	ALU_K(RSH, HASH, 16),
	ALU_K(AND, HASH, GROUP_FLOWS - 1),
	ALU(ADD, HASH, GROUP),
	STORE(W, FRAME, AT_KEY, HASH),
};

/* Loads the address of bucket AT_KEY into R0; never none, but the verifier demands it. */
#define FIND_BUCKET(map) \
	INSN(BPF_LD | BPF_DW | BPF_IMM, R1, BPF_PSEUDO_MAP_FD, 0, map), INSN(0, 0, 0, 0, 0), ALU(MOV, R2, FRAME), \
		ALU_K(ADD, R2, AT_KEY), CALL(map_lookup_elem), JUMP_K(JEQ, R0, 0, END)

/*
 * Notes in a bucket that a packet came now, and leaves in R1 how long after the last one. Another processor may have
 * stored a later time.
 */
#define NOTE_TIME(bucket, label) \
	LOAD(DW, R1, FRAME, AT_NOW), LOAD(DW, R2, bucket, LAST), STORE(DW, bucket, LAST, R1), ALU(SUB, R1, R2), \
		JUMP_K(JSGE, R1, 0, label), ALU_K(MOV, R1, 0), LABEL(label)

/* Loads the bytes of a bucket into R3, less what drained in the time in R1. */
#define DRAIN(bucket, label) \
	LOAD(DW, R3, bucket, BYTES), ALU_K(RSH, R1, DRAIN_SHIFT), JUMP(JGE, R3, R1, label), ALU(MOV, R1, R3), \
		LABEL(label), ALU(SUB, R3, R1)

/* Judges the flow: its queue is R0 at the end. Past FAST it is sparse no more, and the average decides what it is. */
#define JUDGE_FLOW(map) \
	CALL(ktime_get_ns), STORE(DW, FRAME, AT_NOW, R0), FIND_BUCKET(map), ALU(MOV, BUCKET, R0), \
	NOTE_TIME(BUCKET, IN_ORDER), \
	LOAD(W, R3, BUCKET, KIND), \
	JUMP_K(JEQ, R3, KIND_SPARSE, YOUNG), \
	JUMP_K(JGE, R1, QUIET_NS, QUIET), \
	JUMP_K(JEQ, R3, KIND_CROWD, CROWD), \
	JUMP_K(JA, 0, 0, JUDGED), \
	LABEL(QUIET), \
	ALU_K(MOV, R3, 0), \
	STORE(W, BUCKET, KIND, R3), \
	STORE(DW, BUCKET, BYTES, R3), \
	LABEL(YOUNG), \
	DRAIN(BUCKET, DRAINED), \
	LOAD(W, R4, CONTEXT, LENGTH), \
	ALU(MOV, R5, R4), \
	JUMP_K(JEQ, R3, 0, BEGUN), \
	LOAD(W, R5, BUCKET, AVERAGE), \
	ALU_K(MUL, R5, 7), \
	ALU(ADD, R5, R4), \
	ALU_K(RSH, R5, 3), \
	LABEL(BEGUN), \
	STORE(W, BUCKET, AVERAGE, R5), \
	ALU(ADD, R3, R4), \
	ALU_K(ADD, R3, PACKET_COST), \
	STORE(DW, BUCKET, BYTES, R3), \
	JUMP_K(JGT, R3, FLOW_BURST, FAST)

/*
 * All sparse flows of a group together may send as much as one. While they send more, each that does is one of a crowd,
 * and counts as before, so that none of the group is sparse until the crowd sends less.
 */
#define JUDGE_GROUP(map) \
	LABEL(CROWD), \
	LOAD(W, R1, FRAME, AT_GROUP), \
	ALU_K(ADD, R1, FLOWS), \
	STORE(W, FRAME, AT_KEY, R1), \
	FIND_BUCKET(map), \
	NOTE_TIME(R0, SHARED_IN_ORDER), \
	DRAIN(R0, SHARED_DRAINED), \
	LOAD(W, R4, CONTEXT, LENGTH), \
	ALU(ADD, R3, R4), \
	ALU_K(ADD, R3, PACKET_COST), \
	JUMP_K(JLE, R3, 2 * FLOW_BURST, FITS), \
	ALU_K(MOV, R3, 2 * FLOW_BURST), \
	LABEL(FITS), \
	STORE(DW, R0, BYTES, R3), \
	LOAD(W, R1, BUCKET, KIND), \
	JUMP_K(JEQ, R1, KIND_CROWD, CROWDED), \
	LOAD(W, R0, FRAME, AT_SPARSE_QUEUE), \
	JUMP_K(JLE, R3, FLOW_BURST, END), \
	ALU_K(MOV, R4, KIND_CROWD), \
	JUMP_K(JA, 0, 0, CHOOSE)

/* R4 is what a flow becomes that is not bulk. */
static const struct bpf_insn choose_queue[] = {
	LABEL(FAST),
	ALU_K(MOV, R4, KIND_DENSE),
	LABEL(CHOOSE),
	ALU_K(MOV, R3, KIND_BULK),
	LOAD(W, R1, BUCKET, AVERAGE),
	JUMP_K(JGE, R1, JOINED_BYTES, BULK),
	LOAD(W, R2, FRAME, AT_GROUP),
	ALU_K(AND, R2, 1),
	JUMP_K(JEQ, R2, 0, DENSE),
	JUMP_K(JGE, R1, SEGMENT_BYTES, BULK),
	LABEL(DENSE),
	ALU(MOV, R3, R4),
	LABEL(BULK),
	STORE(W, BUCKET, KIND, R3),
	LABEL(JUDGED),
	ALU(MOV, R0, SCRATCH),
	JUMP_K(JEQ, R3, KIND_BULK, END),
	LABEL(CROWDED),
	LOAD(W, R0, FRAME, AT_DENSE_QUEUE),
	LABEL(END),
	EXIT,
};

/* The lanes of bulk flows. Where there are several lanes, the last is for dense flows. */
static uint32_t bulk_lanes(uint32_t lanes)
{
	return lanes > 1 ? lanes - 1 : 1;
}

static int load_for_tun(uint32_t lanes, const char **step)
{
	*step = "bpf(BPF_MAP_CREATE)";
	const int buckets = bpf_create_array(sizeof(struct bucket), BUCKETS);
	if (buckets < 0)
		return -1;
	const struct bpf_insn begin[] = {
		ALU(MOV, CONTEXT, R1),
		ALU_K(MOV, R0, bulk_lanes(lanes)),
		STORE(W, FRAME, AT_BULK_LANES, R0),
		ALU_K(MOV, R0, lanes - 1),
		STORE(W, FRAME, AT_DENSE_QUEUE, R0),
		ALU_K(MOV, R0, lanes),
		STORE(W, FRAME, AT_SPARSE_QUEUE, R0),
	};
	const struct bpf_insn judge[] = { JUDGE_FLOW(buckets), JUDGE_GROUP(buckets) };
	struct bpf_insn program[(sizeof begin + sizeof find_flow + sizeof judge + sizeof choose_queue) / sizeof begin[0]];
	uint8_t *at = (uint8_t *)program;

	at = mempcpy(at, begin, sizeof begin);
	at = mempcpy(at, find_flow, sizeof find_flow);
	at = mempcpy(at, judge, sizeof judge);
	mempcpy(at, choose_queue, sizeof choose_queue);
	*step = "bpf(BPF_PROG_LOAD)";
	const int fd = bpf_load(program, sizeof program / sizeof program[0]), err = errno;
	close(buckets);
	errno = err;
	return fd;
}

/*
 * The packet of a UDP socket starts at the payload. SKF_NET_OFF makes an offset count from the outer IPv4 header, behind
 * which the source port is: a peer has one for each of its lanes (lane-port.h).
 */
static int load_for_udp(uint32_t lanes, const char **step)
{
	struct bpf_insn program[] = {
		ALU(MOV, CONTEXT, R1),
		PACKET(W, SKF_NET_OFF + (int)AT(saddr)),
		ALU(MOV, SCRATCH, R0),
		PACKET(H, SKF_NET_OFF + (int)sizeof(struct iphdr)),
		ALU(XOR, SCRATCH, R0),
		ALU_K(MUL, SCRATCH, 0x9e3779b1),
		ALU_K(RSH, SCRATCH, 24),
		ALU_K(AND, SCRATCH, 0xffff),
		ALU_K(MOD, SCRATCH, bulk_lanes(lanes)),
		PACKET(B, SKF_NET_OFF + (int)AT(tos)),
		ALU_K(AND, R0, 0xfc), /* the other two bits are for ECN (RFC 3168) */
		JUMP_K(JEQ, R0, SPARSE_TOS, SPARSE),
		JUMP_K(JEQ, R0, DENSE_TOS, DENSE),
		ALU(MOV, R0, SCRATCH),
		EXIT,
		LABEL(DENSE),
		ALU_K(MOV, R0, lanes - 1),
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
