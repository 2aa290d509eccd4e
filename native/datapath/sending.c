/* See sending.h. */
#include "sending.h"
#include "answering.h"
#include "path-mtu.h"
#include <errno.h>

static enum counter send_error(int err)
{
	switch (err) {
	case EPERM:
	case EACCES:
		return tx_error_perm;
	case ENETUNREACH:
	case EHOSTUNREACH:
	case ENETDOWN:
	case EADDRNOTAVAIL:
	case EINVAL:
		return tx_error_unreach;
	case ENOBUFS:
	case ENOMEM:
	case EAGAIN:
		return tx_error_nobufs;
	case EMSGSIZE:
		return tx_error_msgsize;
	default:
		return tx_error_other;
	}
}

static void count_sent(struct worker *w, size_t packets, size_t bytes)
{
	counters_add(w->block, tx_ok, packets);
	counters_add(w->block, tx_bytes, bytes);
}

/* The path carries less than the tunnel MTU promises: the sender of the inner packet is told how much. */
static void tell_mtu(struct worker *w, const struct next_hop *hop, const struct packet *p)
{
	struct ipv4 h;

	if (ipv4_parse(p, &h) != IPV4_SOUND || !h.dont_fragment || !icmp_may_answer(p, &h) || !answering_may(w, &h))
		return;
	uint16_t mtu = path_mtu_ask(w->path_mtu, hop->address, hop->port, p);
	struct icmp_error needed = {
		.type = ICMP_UNREACHABLE,
		.code = ICMP_CODE_FRAGMENTATION_NEEDED,
		.mtu = mtu != 0 ? mtu : icmp_smaller_mtu(p->length),
	};
	answering_send(w, &needed, p, &h);
}

static void count_failed(struct worker *w, const struct outgoing *o, size_t i, int err)
{
	const struct run *r = &o->run[i];

	counters_add(w->block, send_error(err), r->packets);
	if (err != EMSGSIZE)
		return;
	const struct packet first = outgoing_packet(o, i, 0);
	tell_mtu(w, &r->hop, &first);
}

static int send_one(const struct worker *w, const struct outgoing *o, size_t i, const struct packet *p)
{
	struct iovec iov = { .iov_base = p->bytes, .iov_len = p->length };
	struct mmsghdr m = {
		.msg_hdr = {
			.msg_name = o->message[i].msg_hdr.msg_name,
			.msg_namelen = o->message[i].msg_hdr.msg_namelen,
			.msg_iov = &iov,
			.msg_iovlen = 1,
		},
	};
	int sent;

	do
		sent = sendmmsg(w->udp, &m, 1, MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	return sent == 1 ? 0 : sent == 0 ? EIO : errno;
}

/* Packet by packet; where the first one, which is as long as any, passes now, it was the offload that failed. */
static void send_apart(struct worker *w, const struct outgoing *o, size_t i)
{
	const struct run *r = &o->run[i];
	bool told = false;

	for (size_t number = 0; number < r->packets; number++) {
		const struct packet p = outgoing_packet(o, i, number);
		int err = send_one(w, o, i, &p);
		if (err == 0 && number == 0) {
			refusals_add(&w->refusals, r->hop.address);
			counters_add(w->block, tx_gso_off, 1);
		}
		if (err == 0) {
			count_sent(w, 1, p.length);
			continue;
		}
		counters_add(w->block, send_error(err), 1);
		if (err == EMSGSIZE && !told)
			tell_mtu(w, &r->hop, &p);
		told = told || err == EMSGSIZE;
	}
}

static bool may_be_the_offload(const struct run *r, int err)
{
	return r->packets > 1 && (err == EIO || err == EINVAL || err == EMSGSIZE);
}

void sending_flush(struct worker *w, struct outgoing *o)
{
	size_t i = 0;

	outgoing_close(o);
	while (i < o->messages) {
		int sent = sendmmsg(w->udp, &o->message[i], (unsigned int)(o->messages - i), MSG_DONTWAIT);
		int err = sent > 0 ? 0 : sent == 0 ? EIO : errno;
		for (; sent > 0; sent--, i++)
			count_sent(w, o->run[i].packets, o->run[i].bytes);
		/*
		 * The error belongs to the first message that is left; each pass of this loop disposes of at least one.
		 */
		if (err == 0 || err == EINTR)
			continue;
		if (may_be_the_offload(&o->run[i], err))
			send_apart(w, o, i);
		else
			count_failed(w, o, i, err);
		i++;
	}
	outgoing_clear(o);
}
