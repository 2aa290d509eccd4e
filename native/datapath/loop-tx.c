/*
 * TUN -> underlay: reads until the queue is empty or the batch is full, decides about each packet, finishes and cuts
 * what the kernel left unfinished, sends the batch. What is counted are packets as they go over the underlay.
 */
#include "answering.h"
#include "segment.h"
#include "sending.h"
#include "turn.h"
#include "wait.h"
#include <errno.h>
#include <unistd.h>

/* Packets begin where a cache line does. */
#define ALIGNMENT 64u

struct leaving {
	struct outgoing outgoing;
	struct arena reading; /* packets that leave as they were read lie here until they are sent */
	struct arena cutting;
};

static void flush(struct worker *w, struct leaving *l)
{
	sending_flush(w, &l->outgoing);
	l->reading.used = 0;
	l->cutting.used = 0;
}

static bool in_bulk(const struct worker *w, const struct next_hop *hop)
{
	return (w->features & FEATURE(udp_segment)) != 0 && !refusals_have(&w->refusals, hop->address);
}

/* Into the messages piece by piece; the reading arena is not touched, so `p` stays good when they are sent between. */
static void cut(struct worker *w, struct leaving *l, const struct super *s, const struct packet *p,
		const struct outcome *out)
{
	for (size_t number = 0; number < s->segments; number++) {
		struct arena *a = &l->cutting;
		struct packet segment = { .bytes = a->bytes + a->used, .length = a->room - a->used };
		if (!outgoing_has_room(&l->outgoing) || segment.length < s->segment_bytes) {
			sending_flush(w, &l->outgoing);
			a->used = 0;
			segment = (struct packet){ .bytes = a->bytes, .length = a->room };
		}
		if (!super_cut(s, p, &out->header, number, &segment))
			continue; /* not with a room that holds the longest packet */
		outgoing_add(&l->outgoing, &out->hop, &segment, in_bulk(w, &out->hop));
		a->used += segment.length;
	}
}

static void pass(struct worker *w, struct leaving *l, const struct super *s, struct packet *p, const struct outcome *out)
{
	if (!super_fits(s, &out->header)) {
		counters_add(w->block, tx_bad_len, s->segments);
		return;
	}
	if (s->segment_bytes != 0) {
		cut(w, l, s, p, out);
		return;
	}
	super_finish(s, p, &out->header);
	outgoing_add(&l->outgoing, &out->hop, p, in_bulk(w, &out->hop));
	l->reading.used += VNET_HEADER_BYTES + p->length;
	l->reading.used += -l->reading.used % ALIGNMENT;
}

/* `bytes` were read at the end of the reading arena, virtio header included. */
static void handle(struct worker *w, struct leaving *l, size_t bytes)
{
	uint8_t *start = l->reading.bytes + l->reading.used;
	struct packet p = { .bytes = start + VNET_HEADER_BYTES, .length = bytes - VNET_HEADER_BYTES };
	struct vnet_header vnet;
	struct super super;
	struct outcome out;

	if (bytes < VNET_HEADER_BYTES) {
		counters_add(w->block, tx_short, 1);
		return;
	}
	vnet_header_get(&vnet, start);
	if (!super_read(&super, &vnet, &p)) {
		counters_add(w->block, tx_bad_len, 1);
		return;
	}
	switch (forward_outbound_super(&p, super.segment_bytes, &w->self, &w->routes, &out)) {
	case SEND_TO_PEER:
		pass(w, l, &super, &p, &out); /* counted when it was sent */
		return;
	case REPLY_ICMP:
		if (answering_may(w, &out.header))
			answering_send(w, &out.error, &p, &out.header);
		break;
	case WRITE_TO_TUN:
	case DROP:
		break;
	}
	counters_add(w->block, out.counter, super.segments);
}

/* Reads and decides; returns how many packets were read, or -1 when the TUN is broken and none was. */
static int read_batch(struct worker *w, struct leaving *l)
{
	const size_t longest = VNET_HEADER_BYTES + BATCH_PACKET_BYTES;

	for (size_t i = 0; i < BATCH_PACKETS; i++) {
		if (!outgoing_has_room(&l->outgoing) || l->reading.room - l->reading.used < longest)
			flush(w, l);
		ssize_t bytes = read(w->tun, l->reading.bytes + l->reading.used, longest);
		if (bytes > 0)
			handle(w, l, (size_t)bytes);
		else if (i > 0 || (bytes < 0 && (errno == EAGAIN || errno == EINTR)))
			return (int)i;
		else
			return -1;
	}
	return BATCH_PACKETS;
}

void loop_tx(struct worker *w)
{
	struct leaving l = { .reading = batch_reading(&w->batch), .cutting = batch_cutting(&w->batch) };
	enum turn turn;

	while ((turn = turn_begin(w)) != TURN_STOP) {
		if (turn == TURN_PARKED) {
			wait_for(-1, w->wake, IDLE_MS);
			continue;
		}
		int count = read_batch(w, &l);
		flush(w, &l);
		if (count == BATCH_PACKETS)
			continue;
		if (count >= 0 && wait_for(w->tun, w->wake, IDLE_MS) != WAIT_BROKEN)
			continue;
		counters_add(w->block, tx_tun_errors, 1);
		wait_for(-1, w->wake, BROKEN_MS);
	}
}
