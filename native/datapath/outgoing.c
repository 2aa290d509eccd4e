/* Grouping of packets into messages; see outgoing.h. */
#include "outgoing.h"
#include <arpa/inet.h>
#include <netinet/udp.h>

static bool may_follow(const struct run *r, const struct next_hop *hop, const struct packet *p)
{
	return !r->is_closed && r->hop.address == hop->address && r->hop.port == hop->port &&
	       p->length <= r->packet_bytes && p->length > 0 && r->packets < RUN_PACKETS_MAX &&
	       r->bytes + p->length <= RUN_BYTES_MAX;
}

static void add_piece(struct outgoing *o, struct msghdr *m, const struct packet *p)
{
	struct iovec *last = m->msg_iovlen == 0 ? NULL : &m->msg_iov[m->msg_iovlen - 1];

	if (last != NULL && (uint8_t *)last->iov_base + last->iov_len == p->bytes) {
		last->iov_len += p->length;
		return;
	}
	o->piece[o->pieces++] = (struct iovec){ .iov_base = p->bytes, .iov_len = p->length };
	m->msg_iovlen++;
}

static void begin(struct outgoing *o, const struct next_hop *hop, const struct packet *p, bool in_bulk)
{
	size_t i = o->messages++;

	o->run[i] = (struct run){ .hop = *hop, .packet_bytes = p->length, .is_closed = !in_bulk };
	o->to[i] = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons(hop->port),
		.sin_addr.s_addr = htonl(hop->address),
	};
	o->message[i] = (struct mmsghdr){
		.msg_hdr = {
			.msg_name = &o->to[i],
			.msg_namelen = sizeof o->to[i],
			.msg_iov = &o->piece[o->pieces],
		},
	};
}

void outgoing_add(struct outgoing *o, const struct next_hop *hop, const struct packet *p, bool in_bulk)
{
	bool follows = in_bulk && o->messages > 0 && may_follow(&o->run[o->messages - 1], hop, p);

	if (!follows)
		begin(o, hop, p, in_bulk);
	struct run *r = &o->run[o->messages - 1];
	add_piece(o, &o->message[o->messages - 1].msg_hdr, p);
	r->packets++;
	r->bytes += p->length;
	r->is_closed = r->is_closed || p->length < r->packet_bytes;
}

void outgoing_close(struct outgoing *o)
{
	for (size_t i = 0; i < o->messages; i++) {
		struct msghdr *m = &o->message[i].msg_hdr;
		uint16_t bytes = (uint16_t)o->run[i].packet_bytes;
		if (o->run[i].packets == 1)
			continue;
		m->msg_control = &o->control[i];
		m->msg_controllen = sizeof o->control[i];
		struct cmsghdr *c = CMSG_FIRSTHDR(m);
		c->cmsg_len = CMSG_LEN(sizeof bytes);
		c->cmsg_level = IPPROTO_UDP;
		c->cmsg_type = UDP_SEGMENT;
		memcpy(CMSG_DATA(c), &bytes, sizeof bytes);
	}
}

struct packet outgoing_packet(const struct outgoing *o, size_t i, size_t number)
{
	const struct run *r = &o->run[i];
	const struct iovec *piece = o->message[i].msg_hdr.msg_iov;
	size_t at = number * r->packet_bytes;
	size_t left = r->bytes - at;

	/* All but the last packet of a run are of one length, so no packet lies across two pieces. */
	for (; at >= piece->iov_len; piece++)
		at -= piece->iov_len;
	return (struct packet){ .bytes = (uint8_t *)piece->iov_base + at,
				.length = left < r->packet_bytes ? left : r->packet_bytes };
}
