/*
 * The plain contender: an overlay as simple as it can be, to measure ours against. One thread, one TUN without a
 * virtio header, one peer, one packet a call: read and sendto, recvfrom and write, each direction once a turn, and
 * poll only when neither had anything. It is built for the bench alone and checks no more than it must to forward.
 *
 *   plain DEVICE OWN-ADDRESS PEER-ADDRESS PORT      prints "ready" when it forwards
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define BYTES_MAX 65535
#define HEADER_BYTES 20
#define TTL_AT 8
#define CHECKSUM_AT 10

struct plain {
	int tun;
	int udp;
	struct sockaddr_in peer;
	uint8_t bytes[BYTES_MAX];
};

static int tun_open(const char *name)
{
	struct ifreq request = { .ifr_flags = IFF_TUN | IFF_NO_PI };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return -1;
	snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
	return ioctl(fd, TUNSETIFF, &request) < 0 ? -1 : fd;
}

static bool address_read(struct sockaddr_in *a, const char *text, const char *port)
{
	a->sin_family = AF_INET;
	a->sin_port = htons((uint16_t)atoi(port));
	return inet_pton(AF_INET, text, &a->sin_addr) == 1;
}

static int udp_open(const struct sockaddr_in *own)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	return bind(fd, (const struct sockaddr *)own, sizeof *own) < 0 ? -1 : fd;
}

/* RFC 1624: the time to live is the high byte of its word, so one less of it is 0x0100 more of the checksum. */
static bool ttl_take(uint8_t *p)
{
	uint32_t sum = (uint32_t)(p[CHECKSUM_AT] << 8 | p[CHECKSUM_AT + 1]) + 0x0100;

	if (p[TTL_AT] <= 1)
		return false;
	sum += sum >> 16;
	p[TTL_AT]--;
	p[CHECKSUM_AT] = (uint8_t)(sum >> 8);
	p[CHECKSUM_AT + 1] = (uint8_t)sum;
	return true;
}

static bool is_ipv4(const uint8_t *p, ssize_t bytes)
{
	return bytes >= HEADER_BYTES && p[0] >> 4 == 4;
}

/* Both return whether there was a packet. */
static bool tun_to_udp(struct plain *o)
{
	ssize_t bytes = read(o->tun, o->bytes, sizeof o->bytes);

	if (bytes <= 0)
		return false;
	if (is_ipv4(o->bytes, bytes) && ttl_take(o->bytes))
		sendto(o->udp, o->bytes, (size_t)bytes, 0, (const struct sockaddr *)&o->peer, sizeof o->peer);
	return true;
}

static bool udp_to_tun(struct plain *o)
{
	struct sockaddr_in from;
	socklen_t room = sizeof from;
	ssize_t bytes = recvfrom(o->udp, o->bytes, sizeof o->bytes, 0, (struct sockaddr *)&from, &room);

	if (bytes <= 0)
		return false;
	if (is_ipv4(o->bytes, bytes) && from.sin_addr.s_addr == o->peer.sin_addr.s_addr &&
	    write(o->tun, o->bytes, (size_t)bytes) < 0 && errno != EAGAIN)
		perror("plain: write");
	return true;
}

static void forward(struct plain *o)
{
	struct pollfd ready[] = { { .fd = o->tun, .events = POLLIN }, { .fd = o->udp, .events = POLLIN } };

	for (;;) {
		bool busy = tun_to_udp(o);

		if (udp_to_tun(o) || busy)
			continue;
		poll(ready, 2, -1);
	}
}

int main(int argc, char **argv)
{
	static struct plain o;
	struct sockaddr_in own = { 0 };

	if (argc != 5 || !address_read(&own, argv[2], argv[4]) || !address_read(&o.peer, argv[3], argv[4])) {
		fputs("usage: plain DEVICE OWN-ADDRESS PEER-ADDRESS PORT\n", stderr);
		return 64;
	}
	o.tun = tun_open(argv[1]);
	o.udp = udp_open(&own);
	if (o.tun < 0 || o.udp < 0) {
		perror("plain");
		return 1;
	}
	puts("ready");
	fflush(stdout);
	forward(&o);
}
