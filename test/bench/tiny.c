/*
 * TCP segments without data and without a connection, as fast as one sender can: ACKs to one port, from one source port
 * or from many in turn, so that each looks like a flow of its own.
 *
 *   tiny ADDRESS PORT SOURCE-PORTS SECONDS    prints one line of JSON: sent
 */
#include "../support/until-told.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 32
/* Below the ports that a host takes for its own connections (net.ipv4.ip_local_port_range). */
#define FIRST_PORT 16384u
#define PORTS_MAX 16384

struct segments {
	struct tcphdr tcp[BATCH];
	struct iovec iov[BATCH];
	struct mmsghdr message[BATCH];
};

static double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint32_t add(uint32_t sum, const void *bytes, size_t length)
{
	uint16_t word;

	for (size_t i = 0; i + 1 < length; i += 2) {
		memcpy(&word, (const uint8_t *)bytes + i, sizeof word);
		sum += word;
	}
	return sum;
}

/* Of the pseudo header and the segment (RFC 9293, 3.1). */
static uint16_t checksum(const struct sockaddr_in *own, const struct sockaddr_in *peer, const struct tcphdr *tcp)
{
	uint32_t sum = add(add(0, &own->sin_addr, 4), &peer->sin_addr, 4);

	sum = add(sum + htons(IPPROTO_TCP) + htons(sizeof *tcp), tcp, sizeof *tcp);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static uint64_t send_all(struct segments *s, int fd, const struct sockaddr_in *peer, unsigned ports, double seconds)
{
	struct sockaddr_in own;
	socklen_t length = sizeof own;
	const double end = seconds_now() + seconds;
	uint64_t sent = 0;

	if (connect(fd, (const struct sockaddr *)peer, sizeof *peer) < 0 ||
	    getsockname(fd, (struct sockaddr *)&own, &length) < 0) {
		perror("tiny: connect");
		exit(1);
	}
	while (seconds_now() < end && !told_to_stop) {
		for (unsigned i = 0; i < BATCH; i++) {
			struct tcphdr *tcp = &s->tcp[i];

			*tcp = (struct tcphdr){ .doff = sizeof *tcp / 4, .ack = 1, .window = htons(512), .dest = peer->sin_port };
			tcp->source = htons((uint16_t)(FIRST_PORT + (sent + i) % ports));
			tcp->seq = tcp->ack_seq = htonl(1);
			tcp->check = checksum(&own, peer, tcp);
			s->iov[i] = (struct iovec){ .iov_base = tcp, .iov_len = sizeof *tcp };
			s->message[i].msg_hdr = (struct msghdr){ .msg_iov = &s->iov[i], .msg_iovlen = 1 };
		}
		int count = sendmmsg(fd, s->message, BATCH, 0);
		if (count > 0)
			sent += (uint64_t)count;
	}
	return sent;
}

int main(int argc, char **argv)
{
	static struct segments s;
	struct sockaddr_in peer = { .sin_family = AF_INET };
	const int ports = argc == 5 ? atoi(argv[3]) : 0;
	int fd;

	if (ports < 1 || ports > PORTS_MAX || inet_pton(AF_INET, argv[1], &peer.sin_addr) != 1) {
		fputs("usage: tiny ADDRESS PORT SOURCE-PORTS SECONDS\n", stderr);
		return 64;
	}
	fd = socket(AF_INET, SOCK_RAW, IPPROTO_TCP);
	if (fd < 0) {
		perror("tiny: socket");
		return 1;
	}
	stop_when_told();
	peer.sin_port = htons((uint16_t)atoi(argv[2]));
	printf("{\"sent\":%" PRIu64 "}\n", send_all(&s, fd, &peer, (unsigned)ports, atof(argv[4])));
	return 0;
}
