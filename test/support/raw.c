/*
 * Whole IPv4 packets, for the tests of what an overlay must not change; one mode per run.
 *
 *   send                 each line of stdin is a packet in hex, sent to its destination (raw(7): the kernel fills in the
 *                        checksum, the length, and an identification that is 0)
 *   receive PROTOCOL     prints "ready", then each packet of that protocol to this host in hex, reassembled, until it is ended
 */
#include <arpa/inet.h>
#include <netinet/ip.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define PACKET_MAX 65535u

static _Noreturn void fail(const char *what)
{
	perror(what);
	exit(1);
}

static int raw_socket(int protocol)
{
	int fd = socket(AF_INET, SOCK_RAW, protocol);
	if (fd < 0)
		fail("raw: socket");
	return fd;
}

static size_t bytes_of(const char *hex, unsigned char *out)
{
	size_t n = 0;
	unsigned int byte;
	while (n < PACKET_MAX && sscanf(hex + 2 * n, "%2x", &byte) == 1)
		out[n++] = (unsigned char)byte;
	return n;
}

static int send_packets(void)
{
	static char line[2 * PACKET_MAX + 2];
	static unsigned char packet[PACKET_MAX];
	struct iphdr header;
	int fd = raw_socket(IPPROTO_RAW);
	while (fgets(line, sizeof line, stdin)) {
		size_t bytes = bytes_of(line, packet);
		if (bytes < sizeof header)
			return 64;
		memcpy(&header, packet, sizeof header);
		struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = header.daddr};
		if (sendto(fd, packet, bytes, 0, (void *)&to, sizeof to) < 0)
			fail("raw: send");
	}
	return 0;
}

static int receive_packets(int protocol)
{
	static unsigned char packet[PACKET_MAX];
	int fd = raw_socket(protocol);
	puts("ready");
	for (;;) {
		fflush(stdout);
		ssize_t bytes = recv(fd, packet, sizeof packet, 0);
		if (bytes < 0)
			fail("raw: receive");
		for (ssize_t at = 0; at < bytes; at++)
			printf("%02x", packet[at]);
		puts("");
	}
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "send"))
		return send_packets();
	if (argc == 3 && !strcmp(argv[1], "receive"))
		return receive_packets(atoi(argv[2]));
	fprintf(stderr, "raw: unknown mode, see the head of raw.c\n");
	return 64;
}
