/*
 * See tx-send.h. Errors are those of one peer: what follows in the batch is sent.
 *
 *   sendmmsg(2) --- refused --> GSO run: packet by packet --- too long --> no DF: learn the path MTU, send fragments
 *                                                                          DF: learn it, "fragmentation needed"
 */
#include "tx-send.h"
#include "fragment.h"
#include "icmp-reply.h"
#include "path-mtu.h"
#include "peer-traffic.h"
#include "prober.h"
#include <errno.h>

static enum counter counter_of(int err)
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

static void count_sent(struct worker *w, uint32_t peer, size_t packets, size_t bytes)
{
	const struct peer_run run = { .peer = peer, .packets = (uint32_t)packets, .bytes = bytes };

	if (peer_traffic_sent(w->counters, &w->routes, &run, w->now_ns))
		prober_activate(w, peer);
	count_add(w->block, tx_bytes, bytes);
	count_add(w->block, tx_ok, packets);
}

/* What was refused makes the pair active, too: the prober is to find out how much the network refuses. */
static void count_refused(struct worker *w, uint32_t peer, enum counter why, size_t packets)
{
	const struct peer_run nothing = { .peer = peer };

	if (peer_traffic_sent(w->counters, &w->routes, &nothing, w->now_ns))
		prober_activate(w, peer);
	count_add(w->block, why, packets);
}

static int send_one(struct worker *w, const struct peer_endpoint *endpoint, const struct packet *p)
{
	struct sockaddr_in to = tx_batch_address(endpoint);
	struct iovec iov = { .iov_base = p->bytes, .iov_len = p->length };
	struct mmsghdr m = {
		.msg_hdr = { .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &iov, .msg_iovlen = 1 },
	};
	int sent;

	do
		sent = sendmmsg(lane_port_socket(w, endpoint), &m, 1, MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	return sent == 1 ? 0 : sent == 0 ? EIO : errno;
}

/*
 * Learns the longest inner packet that the path carries: asks the kernel, or takes the next usual one if it does not
 * know. False if the question has sent the packet, because the path has become wider.
 */
static bool learn_path_mtu(struct worker *w, const struct peer_endpoint *endpoint, const struct packet *p,
			   size_t *longest)
{
	*longest = path_mtu_ask(w->path_mtu, endpoint, p);
	if (*longest >= p->length)
		return false;
	if (*longest == 0)
		*longest = icmp_smaller_mtu(p->length);
	peer_blocks_learn_path_mtu(w->counters, &w->routes, endpoint->peer, *longest, w->now_ns);
	return true;
}

/*
 * Tells the inner sender how long a packet the path carries, which is less than the MTU of the tunnel. False if the
 * packet was sent instead (learn_path_mtu).
 */
static bool report_path_mtu(struct worker *w, const struct peer_endpoint *endpoint, const struct packet *p,
			    const struct ipv4 *h)
{
	size_t longest;

	if (!icmp_may_reply(p, h) || !icmp_reply_allow(w, h))
		return true;
	if (!learn_path_mtu(w, endpoint, p, &longest))
		return false;
	struct icmp_error needed = {
		.type = ICMP_UNREACHABLE,
		.code = ICMP_CODE_FRAGMENTATION_NEEDED,
		.mtu = (uint16_t)(longest - peer_blocks_extra(&w->routes, endpoint->peer)),
	};
	icmp_reply_send(w, &needed, p, h);
	return true;
}

/* Sends the fragment, or learns that the path is narrower than `longest` and returns false. */
static bool send_fragment(struct worker *w, const struct peer_endpoint *endpoint, const struct packet *fragment,
			  size_t *longest)
{
	int err = send_one(w, endpoint, fragment);

	if (err == EMSGSIZE && fragment->length > IPV4_MTU_MIN && learn_path_mtu(w, endpoint, fragment, longest))
		return false;
	if (err == 0)
		count_sent(w, endpoint->peer, 1, fragment->length);
	else
		count_refused(w, endpoint->peer, counter_of(err), 1);
	return true;
}

static void send_fragments(struct worker *w, const struct peer_endpoint *endpoint, const struct packet *p,
			   const struct ipv4 *h, size_t longest)
{
	const size_t payload = p->length - h->header_bytes;

	for (size_t from = 0; from < payload;) {
		struct packet fragment = { .bytes = buffers_fragment(&w->buffers), .length = DATAGRAM_BYTES_MAX };
		size_t bytes = fragment_write(p, h, longest, from, &fragment);
		if (bytes == 0)
			return; /* never happens, because every length that is learnt holds a header and 8 bytes */
		/* Each refusal makes `longest` shorter, so this ends. */
		if (send_fragment(w, endpoint, &fragment, &longest))
			from += bytes;
	}
}

/* What the kernel refused as too long for the path: sends a packet without DF in fragments, and reports one with DF. */
static void send_too_long(struct worker *w, const struct peer_endpoint *endpoint, const struct packet *p,
			  bool *is_reported)
{
	struct ipv4 h;
	size_t longest = peer_blocks_path_mtu(w->counters, &w->routes, endpoint->peer, w->now_ns);
	bool is_sound = ipv4_parse(p, &h) == IPV4_SOUND;

	if (is_sound && !h.dont_fragment && !ipv4_fragment_impossible(&h) && p->length > IPV4_MTU_MIN) {
		if (longest < p->length || learn_path_mtu(w, endpoint, p, &longest))
			send_fragments(w, endpoint, p, &h, longest);
		else
			count_sent(w, endpoint->peer, 1, p->length);
		return;
	}
	if (is_sound && h.dont_fragment && !*is_reported) {
		*is_reported = report_path_mtu(w, endpoint, p, &h);
		if (!*is_reported) {
			count_sent(w, endpoint->peer, 1, p->length);
			return;
		}
	}
	count_refused(w, endpoint->peer, tx_error_msgsize, 1);
}

/* Sends a run packet by packet. If the first packet, which is as long as any, passes now, UDP_SEGMENT was the cause. */
static void send_singly(struct worker *w, const struct tx_batch *b, size_t i)
{
	const struct gso_run *r = &b->gso_run[i];
	bool is_reported = false;

	for (size_t number = 0; number < r->packets; number++) {
		const struct packet p = tx_batch_packet(b, i, number);
		int err = send_one(w, &r->endpoint, &p);
		if (err == 0 && number == 0) {
			gso_denied_add(&w->gso_denied, r->endpoint.address, w->now_ns);
			count_add(w->block, tx_gso_off, 1);
		}
		if (err == 0)
			count_sent(w, r->endpoint.peer, 1, p.length);
		else if (err == EMSGSIZE)
			send_too_long(w, &r->endpoint, &p, &is_reported);
		else
			count_refused(w, r->endpoint.peer, counter_of(err), 1);
	}
}

/* Another try of message `i`, or its counter. */
static void handle_refused(struct worker *w, const struct tx_batch *b, size_t i, int err)
{
	const struct gso_run *r = &b->gso_run[i];
	const struct packet first = tx_batch_packet(b, i, 0);
	bool is_reported = false;

	if (r->packets > 1 && (err == EIO || err == EINVAL || err == EMSGSIZE))
		send_singly(w, b, i);
	else if (err == EMSGSIZE)
		send_too_long(w, &r->endpoint, &first, &is_reported);
	else
		count_refused(w, r->endpoint.peer, counter_of(err), r->packets);
}

/* How many messages from `first` on go from one socket, which is `fd`. */
static size_t of_one_socket(struct worker *w, const struct tx_batch *b, size_t first, int *fd)
{
	size_t end = first + 1;

	*fd = lane_port_socket(w, &b->gso_run[first].endpoint);
	while (end < b->messages && lane_port_socket(w, &b->gso_run[end].endpoint) == *fd)
		end++;
	return end - first;
}

void tx_send(struct worker *w, struct tx_batch *b)
{
	size_t i = 0;

	tx_batch_finish(b);
	while (i < b->messages) {
		int fd;
		const size_t count = of_one_socket(w, b, i, &fd);
		int sent = sendmmsg(fd, &b->message[i], (unsigned int)count, MSG_DONTWAIT);
		int err = sent > 0 ? 0 : sent == 0 ? EIO : errno;
		for (; sent > 0; sent--, i++)
			count_sent(w, b->gso_run[i].endpoint.peer, b->gso_run[i].packets, b->gso_run[i].bytes);
		/* The error is that of the first message left. Each pass of this loop disposes of one at least. */
		if (err == 0 || err == EINTR)
			continue;
		handle_refused(w, b, i++, err);
	}
	tx_batch_clear(b);
}
