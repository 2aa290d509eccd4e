/*
 * For kernel-path.bpf.c: probes on the kernel path. They are those of datapath/probe.h with kinds of their own, as UDP
 * inside the tunnel, from and to KERNEL_PROBE_PORT. Both addresses are the first or the second of a subnet, which no
 * container has.
 */
#ifndef TARTAN_KERNEL_PROBE_H
#define TARTAN_KERNEL_PROBE_H

#include "kernel-helpers.h"

#define PROBE_KERNEL_QUESTION 3u
#define PROBE_KERNEL_ANSWER 4u
#define PROBE_TYPE 0xe0u
#define PROBE_VERSION 1u
#define ANSWERS_PER_SECOND 10u

/* Big-endian, as on the wire. */
struct probe_datagram {
	uint16_t source_port;
	uint16_t destination_port;
	uint16_t length;
	uint16_t checksum;
	uint8_t type;
	uint8_t version;
	uint8_t kind;
	uint8_t flags;
	uint32_t sequence;
	uint64_t opaque;
	uint8_t family;
	uint8_t prefix_length;
	uint8_t prefix[4];
	uint16_t arrived;
} __attribute__((packed));
#define AT(member) (IPV4_HEADER_BYTES + offsetof(struct probe_datagram, member))

/* The kind of a probe; 0: the packet is data. */
static inline uint8_t probe_kind(const struct __sk_buff *skb, struct hand *h)
{
	const uint32_t ports = KERNEL_PROBE_PORT << 16 | KERNEL_PROBE_PORT;
	const struct view *v = &h->view;

	if (v->protocol != IPPROTO_UDP || v->header_bytes != IPV4_HEADER_BYTES || v->fragment != 0)
		return 0;
	/* No host has a subnet of less than four addresses. */
	if ((v->source & 3) > 1 || (v->destination & 3) > 1 || skb->gso_size != 0)
		return 0;
	if (load_bytes(skb, v->start + IPV4_HEADER_BYTES, PART(h, probe), sizeof h->probe) != 0 || swap32(h->probe[0]) != ports)
		return 0;
	const uint32_t head = swap32(h->probe[2]), kind = head >> 8 & 0xff;
	if (head >> 16 != (PROBE_TYPE << 8 | PROBE_VERSION) || kind < PROBE_KERNEL_QUESTION || kind > PROBE_KERNEL_ANSWER)
		return 0;
	return (uint8_t)kind;
}

/* Whether the lengths of the datagram fit each other; a question says that nothing has arrived yet. */
static inline bool probe_is_sound(const struct probe_datagram *p, const struct view *v)
{
	if (v->total < IPV4_HEADER_BYTES + sizeof *p || swap16(p->length) != v->total - IPV4_HEADER_BYTES || p->family != 4)
		return false;
	return p->kind == PROBE_KERNEL_ANSWER || p->arrived == 0;
}

/*
 * Whether to answer one more question; see datapath/answer-limit.h. Processors may take the same second for a new one at
 * once, and then answer one more each.
 */
static inline bool may_answer(struct kernel_answers *a, uint32_t second)
{
	if (a->second != second) {
		a->before = a->second + 1 == second ? a->questions : 0;
		a->questions = 0;
		a->answers = 0;
		a->second = second;
	}
	__sync_fetch_and_add(&a->questions, 1);
	uint32_t expected = a->questions > a->before ? a->questions : a->before;
	if (expected < ANSWERS_PER_SECOND)
		expected = ANSWERS_PER_SECOND;
	if (a->answers >= ANSWERS_PER_SECOND || random32() % expected >= ANSWERS_PER_SECOND)
		return false;
	__sync_fetch_and_add(&a->answers, 1);
	return a->answers <= ANSWERS_PER_SECOND;
}

/* Makes a question its answer: addresses swapped, the kind, and how many bytes arrived. Both ports are the same. */
static inline bool probe_turn(struct __sk_buff *skb, const struct view *v, const struct probe_datagram *p)
{
	const uint32_t addresses[2] = { swap32(v->destination), swap32(v->source) };
	const uint16_t arrived = swap16((uint16_t)(v->total - AT(type)));
	const uint8_t kind = PROBE_KERNEL_ANSWER;
	const uint32_t checksum = v->start + AT(checksum);
	const uint16_t before = (uint16_t)(PROBE_KERNEL_QUESTION | p->flags << 8);
	const uint16_t after = (uint16_t)(PROBE_KERNEL_ANSWER | p->flags << 8);

	return l4_csum_replace(skb, checksum, before, after, BPF_F_MARK_MANGLED_0 | 2) == 0 &&
	       l4_csum_replace(skb, checksum, p->arrived, arrived, BPF_F_MARK_MANGLED_0 | 2) == 0 &&
	       store_bytes(skb, v->start + AT(kind), &kind, sizeof kind, 0) == 0 &&
	       store_bytes(skb, v->start + AT(arrived), &arrived, sizeof arrived, 0) == 0 &&
	       store_bytes(skb, v->start + offsetof(struct ipv4_header, source), addresses, sizeof addresses, 0) == 0;
}

#endif
