/*
 * A probe: a datagram by which one data process asks another whether it hears, how long that takes, and how long a
 * datagram the path carries. Pure. Big-endian:
 *
 *   0  0xE0      4  sequence     16  family, 4       18  address of that prefix
 *   1  version   8  opaque       17  prefix length   22  bytes of the question that arrived; 0 in a question
 *   2  kind          of the sender's prefix          24  zeros up to the length under test
 *   3  flags: 1 in a question from a port of its own (lane-port.h), else 0; others are ignored
 *
 * The opaque is random and comes back in the answer, so that nobody answers who did not hear the question.
 */
#ifndef TARTAN_PROBE_H
#define TARTAN_PROBE_H

#include "packet.h"

#define PROBE_TYPE 0xe0u
#define PROBE_VERSION 1u
#define PROBE_BYTES 24u

enum probe_kind { PROBE_QUESTION = 1, PROBE_ANSWER = 2 };

struct probe {
	enum probe_kind kind;
	uint32_t sequence;
	uint64_t opaque;
	uint32_t prefix;
	uint32_t prefix_length;
	uint16_t arrived; /* of PROBE_ANSWER */
	bool of_lane_port; /* of PROBE_QUESTION: data comes from the port of this question, too */
};

/* Whether the first byte is that of a datagram which is no inner packet: 0xE0 to 0xEF. */
static inline bool probe_is_typed(const struct packet *p)
{
	return packet_u8(p, 0) >> 4 == PROBE_TYPE >> 4;
}

/* False if the bytes are not a sound probe of this version. */
bool probe_read(const struct packet *p, struct probe *probe);

/* Writes the probe and zeros behind it, p->length bytes in all, at least PROBE_BYTES. */
void probe_write(struct packet *p, const struct probe *probe);

#endif
