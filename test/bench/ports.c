/*
 * Which source ports the UDP datagrams have that come in on a link, as a card sees them that deals flows out by a hash.
 *
 *   ports LINK PORT    until SIGTERM; prints one line of JSON: datagrams to that port, source ports, and the share of the
 *                      source port that has most
 */
#include "../support/until-told.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static uint64_t of_port[65536];

/* The link gives IPv4 packets without their Ethernet header (packet(7), SOCK_DGRAM). */
static int open_link(const char *name)
{
	const struct sockaddr_ll link = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_IP),
		.sll_ifindex = (int)if_nametoindex(name),
	};
	const int fd = socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_IP));
	const struct timeval often = { .tv_usec = 50000 };

	if (fd < 0 || link.sll_ifindex == 0 || bind(fd, (const struct sockaddr *)&link, sizeof link) != 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &often, sizeof often) != 0) {
		perror(name);
		exit(1);
	}
	return fd;
}

static void take(int fd, uint16_t port)
{
	struct {
		struct iphdr ip;
		struct udphdr udp;
	} head;
	struct sockaddr_ll from;
	socklen_t length = sizeof from;

	if (recvfrom(fd, &head, sizeof head, 0, (struct sockaddr *)&from, &length) != (ssize_t)sizeof head)
		return;
	if (from.sll_pkttype == PACKET_HOST && head.ip.ihl == 5 && head.ip.protocol == IPPROTO_UDP &&
	    head.udp.dest == htons(port))
		of_port[ntohs(head.udp.source)]++;
}

int main(int argc, char **argv)
{
	uint64_t all = 0, most = 0;
	unsigned ports = 0;

	if (argc != 3) {
		fprintf(stderr, "usage: ports LINK PORT\n");
		return 64;
	}
	const int fd = open_link(argv[1]);
	stop_when_told();
	printf("ready\n");
	fflush(stdout);
	while (!told_to_stop)
		take(fd, (uint16_t)atoi(argv[2]));
	for (unsigned i = 0; i < 65536; i++) {
		all += of_port[i];
		ports += of_port[i] != 0;
		most = of_port[i] > most ? of_port[i] : most;
	}
	printf("{\"datagrams\":%" PRIu64 ",\"ports\":%u,\"most\":%.3f}\n", all, ports, all ? (double)most / (double)all : 0);
	return 0;
}
