/*
 * See lane-port.h. Nobody waits for the socket: the thread that has a packet for the peer looks for the answer.
 *
 *   first packet -> question -> answer within 1 s -> own port, asked again each 5 s
 *                            -> three without an answer -> port of the network, asked again each minute
 */
#include "lane-port.h"
#include "prober.h"
#include <arpa/inet.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* Room for answers alone. */
#define RECEIVE_BYTES 32768
#define LOOK_NS (20 * MILLISECOND_NS)
#define NO_BUDGET_NS (100 * MILLISECOND_NS)
#define TRIES 3u
#define AGAIN_NS (60 * SECOND_NS)
/* Datagrams that are read in one look. */
#define ANSWERS_MAX 16u

static bool copy_option(int to, int from, int level, int option)
{
	socklen_t bytes = sizeof(int);
	int value;

	return getsockopt(from, level, option, &value, &bytes) == 0 &&
	       setsockopt(to, level, option, &value, bytes) == 0;
}

/* The kernel tells twice of what was set, for its own overhead (socket(7)). */
static void set_buffers(int fd, int udp)
{
	socklen_t bytes = sizeof(int);
	int send = 0, receive = RECEIVE_BYTES;

	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive, sizeof receive);
	if (getsockopt(udp, SOL_SOCKET, SO_SNDBUF, &send, &bytes) < 0)
		return;
	send /= 2;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &send, sizeof send) < 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send, sizeof send);
}

static bool prepare(int fd, int udp)
{
	struct sockaddr_in address;
	socklen_t bytes = sizeof address;

	if (getsockname(udp, (struct sockaddr *)&address, &bytes) < 0 || address.sin_family != AF_INET)
		return false;
	address.sin_port = 0;
	set_buffers(fd, udp);
	return copy_option(fd, udp, IPPROTO_IP, IP_MTU_DISCOVER) && copy_option(fd, udp, IPPROTO_IP, IP_TOS) &&
	       bind(fd, (const struct sockaddr *)&address, sizeof address) == 0;
}

void lane_port_open(struct lane_port *l, int udp)
{
	const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	*l = (struct lane_port){ .fd = fd };
	if (fd < 0)
		return;
	void *peers = !prepare(fd, udp) ? MAP_FAILED : mmap(NULL, PEERS_MAX * sizeof *l->peer, PROT_READ | PROT_WRITE,
							    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (peers == MAP_FAILED)
		close(fd);
	else
		l->peer = peers;
}

static void take_answer(struct worker *w, const struct packet *p, uint32_t source)
{
	const struct peer *row = route_table_by_endpoint(&w->routes, source);
	struct probe answer;

	if (row == NULL || !probe_read(p, &answer) || answer.kind != PROBE_ANSWER)
		return;
	struct lane_peer *peer = &w->lane_port.peer[row - w->routes.slot->peers];
	if (!peer->is_open || peer->address != source || peer->opaque != answer.opaque)
		return;
	peer->is_open = false;
	peer->is_proven = true;
	peer->unanswered = 0;
	peer->next_ns = peer->asked_ns + ASK_ACTIVE_NS;
}

static void take_answers(struct worker *w)
{
	for (size_t i = 0; i < ANSWERS_MAX; i++) {
		uint8_t bytes[PROBE_BYTES];
		struct sockaddr_in from;
		struct iovec iov = { .iov_base = bytes, .iov_len = sizeof bytes };
		struct mmsghdr m = { .msg_hdr = { .msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &iov,
						  .msg_iovlen = 1 } };
		if (recvmmsg(w->lane_port.fd, &m, 1, MSG_DONTWAIT, NULL) != 1)
			return;
		const struct packet p = { .bytes = bytes, .length = m.msg_len };
		take_answer(w, &p, ntohl(from.sin_addr.s_addr));
	}
}

static void give_up(struct lane_peer *p, uint64_t now_ns)
{
	p->is_open = false;
	if (++p->unanswered < TRIES)
		return;
	p->is_proven = false;
	p->unanswered = 0;
	p->next_ns = now_ns + AGAIN_NS;
}

/* Looks for the answer, and asks if it is time. */
static void look_after(struct worker *w, struct lane_peer *p, uint32_t number)
{
	take_answers(w);
	if (p->is_open && clock_since_ns(w->now_ns, p->asked_ns) < SECOND_NS) {
		p->next_ns = w->now_ns + LOOK_NS;
		return;
	}
	if (p->is_open)
		give_up(p, w->now_ns);
	if (p->next_ns > w->now_ns)
		return;
	p->is_open = prober_ask_from(w, w->lane_port.fd, number, &p->opaque);
	p->asked_ns = w->now_ns;
	p->next_ns = w->now_ns + (p->is_open ? LOOK_NS : NO_BUDGET_NS);
}

int lane_port_socket(struct worker *w, const struct peer_endpoint *endpoint)
{
	if (w->lane_port.peer == NULL || w->prober == NULL || endpoint->peer >= w->routes.peer_count ||
	    (w->routes.slot->peers[endpoint->peer].features & FEATURE_PROBE) == 0)
		return w->udp;
	struct lane_peer *p = &w->lane_port.peer[endpoint->peer];
	if (p->address != endpoint->address)
		*p = (struct lane_peer){ .address = endpoint->address };
	if (p->next_ns <= w->now_ns)
		look_after(w, p, endpoint->peer);
	return p->is_proven ? w->lane_port.fd : w->udp;
}
