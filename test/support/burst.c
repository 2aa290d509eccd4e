/*
 * One flow of datagrams whose every byte is known, for the tests of packets in bulk; one mode per run.
 *
 *   receive PORT              prints "ready"; "N\n" on stdin says how many were sent, then its report: a line of JSON
 *   send ADDRESS PORT PART... prints "ready", sends all parts in their order and prints its report
 *   raw ADDRESS PORT BYTES    stdin, read to its end, in one UDP_SEGMENT message of segments of so many bytes
 *
 * A PART is `SIZE`, a datagram, or `SIZExCOUNT[+LAST]`, one UDP_SEGMENT message of COUNT segments and a shorter one.
 * A datagram is: its number and its length, little-endian, then bytes that both determine; MARK in the length asks the
 * receiver to answer with the number. The sender waits for an answer before more is under way than queues hold, so
 * that what is lost on an idle path was lost by whoever carried it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEADER 8u
#define MARK 0x80000000u
#define DATAGRAM_MAX 65507u
#define NUMBERS_MAX 1000000u
/* As much as the buffer of a socket holds that nobody enlarged (208 KB with the kernel's overhead). */
#define WINDOW_BYTES 66000u
#define WINDOW_DATAGRAMS 80u
#define ANSWER_MS 1000
/* Enough is lost then to say so. */
#define UNANSWERED_MAX 3
#define QUIET_MS 300

static _Noreturn void fail(const char *what)
{
	perror(what);
	exit(1);
}

static struct sockaddr_in address_of(const char *host, const char *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	if (inet_pton(AF_INET, host, &a.sin_addr) != 1) {
		fprintf(stderr, "burst: bad address %s\n", host);
		exit(64);
	}
	return a;
}

static int udp_socket(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0)
		fail("burst: socket");
	return fd;
}

static void ready(void)
{
	puts("ready");
	fflush(stdout);
}

static void fill(unsigned char *data, uint32_t number, uint32_t bytes)
{
	uint32_t state = (number * 0x9e3779b1u ^ bytes) | 1;
	memcpy(data, &number, 4);
	memcpy(data + 4, &bytes, 4);
	for (uint32_t at = HEADER; at < bytes; at += 4) {
		state ^= state << 13;
		state ^= state >> 17;
		state ^= state << 5;
		memcpy(data + at, &state, bytes - at < 4 ? bytes - at : 4);
	}
}

/* What has arrived so far. */
struct arrivals {
	unsigned char seen[NUMBERS_MAX];
	uint32_t received, corrupted, duplicates, reordered, next;
};

/* The number of a datagram with exactly the bytes that it was sent with, else NUMBERS_MAX. */
static uint32_t number_of(unsigned char *data, size_t bytes, bool *asks)
{
	static unsigned char expected[DATAGRAM_MAX];
	uint32_t number, length;
	if (bytes < HEADER)
		return NUMBERS_MAX;
	memcpy(&number, data, 4);
	memcpy(&length, data + 4, 4);
	*asks = (length & MARK) != 0;
	length &= ~MARK;
	memcpy(data + 4, &length, 4);
	if (length != bytes || number >= NUMBERS_MAX)
		return NUMBERS_MAX;
	fill(expected, number, length);
	return memcmp(data, expected, bytes) == 0 ? number : NUMBERS_MAX;
}

static void arrive(struct arrivals *a, uint32_t number)
{
	if (number == NUMBERS_MAX) {
		a->corrupted++;
	} else if (a->seen[number]) {
		a->duplicates++;
	} else {
		a->seen[number] = 1;
		a->received++;
		if (number < a->next)
			a->reordered++;
		else
			a->next = number + 1;
	}
}

static void receive_one(struct arrivals *a, int fd)
{
	static unsigned char data[DATAGRAM_MAX];
	struct sockaddr_in from;
	socklen_t room = sizeof from;
	bool asks = false;
	ssize_t bytes = recvfrom(fd, data, sizeof data, 0, (void *)&from, &room);
	if (bytes < 0)
		fail("burst: recvfrom");
	uint32_t number = number_of(data, (size_t)bytes, &asks);
	arrive(a, number);
	if (asks && sendto(fd, &number, sizeof number, 0, (void *)&from, room) < 0)
		fail("burst: answer");
}

/* How many numbers below `sent` did not arrive, and the first of them. */
static void report(const struct arrivals *a, uint32_t sent)
{
	uint32_t lost = 0;
	long first = -1;
	for (uint32_t i = 0; i < sent && i < NUMBERS_MAX; i++) {
		if (a->seen[i])
			continue;
		first = lost++ == 0 ? (long)i : first;
	}
	printf("{\"received\":%u,\"lost\":%u,\"firstLost\":%ld,\"corrupted\":%u,\"duplicates\":%u,\"reordered\":%u}\n", a->received,
	       lost, first, a->corrupted, a->duplicates, a->reordered);
}

static int receive(const char *port)
{
	static struct arrivals a;
	struct sockaddr_in own = address_of("0.0.0.0", port);
	int fd = udp_socket(), buffer = 8 << 20;
	struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
	char line[32] = "";
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
	if (bind(fd, (void *)&own, sizeof own))
		fail("burst: bind");
	ready();
	for (bool told = false;;) {
		int n = poll(p, told ? 1 : 2, told ? QUIET_MS : -1);
		if (n < 0)
			fail("burst: poll");
		if (n == 0)
			break;
		if (p[0].revents)
			receive_one(&a, fd);
		else if (!fgets(line, sizeof line, stdin))
			return 1;
		else
			told = true;
	}
	report(&a, (uint32_t)strtoul(line, NULL, 10));
	return 0;
}

struct sender {
	int fd;
	uint32_t number; /* of the next datagram */
	uint32_t unanswered;
	unsigned char data[DATAGRAM_MAX];
};

/* All in one message; without `segment` it is one datagram. */
static void send_message(int fd, void *data, size_t bytes, uint16_t segment)
{
	union {
		char space[CMSG_SPACE(sizeof segment)];
		struct cmsghdr aligned;
	} control = {0};
	struct iovec iov = {.iov_base = data, .iov_len = bytes};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	if (segment != 0) {
		m.msg_control = &control;
		m.msg_controllen = sizeof control;
		*CMSG_FIRSTHDR(&m) =
			(struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof segment), .cmsg_level = IPPROTO_UDP, .cmsg_type = UDP_SEGMENT};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &segment, sizeof segment);
	}
	if (sendmsg(fd, &m, 0) != (ssize_t)bytes)
		fail("burst: sendmsg");
}

static void await_answer(struct sender *s, uint32_t number)
{
	struct pollfd p = {.fd = s->fd, .events = POLLIN};
	uint32_t answer;
	while (poll(&p, 1, ANSWER_MS) == 1)
		if (recv(s->fd, &answer, sizeof answer, 0) == sizeof answer && answer == number)
			return;
	s->unanswered++;
}

struct part {
	uint32_t size, count, last;
	uint32_t bytes, datagrams;
	bool in_segments;
};

static struct part part_of(const char *text)
{
	struct part p = {.count = 1};
	int fields = sscanf(text, "%ux%u+%u", &p.size, &p.count, &p.last);
	p.bytes = p.count * p.size + p.last;
	p.datagrams = p.count + (p.last != 0);
	p.in_segments = fields > 1;
	if (fields < 1 || p.size < HEADER || p.count < 1 || (p.last != 0 && p.last < HEADER) || p.bytes > DATAGRAM_MAX) {
		fprintf(stderr, "burst: bad part %s\n", text);
		exit(64);
	}
	return p;
}

static void send_part(struct sender *s, const struct part *p, bool asks)
{
	uint32_t at = 0;
	for (uint32_t i = 0; i < p->datagrams; i++, s->number++) {
		uint32_t bytes = i < p->count ? p->size : p->last, marked = bytes | MARK;
		fill(s->data + at, s->number, bytes);
		if (asks && i + 1 == p->datagrams)
			memcpy(s->data + at + 4, &marked, 4);
		at += bytes;
	}
	send_message(s->fd, s->data, at, p->in_segments ? (uint16_t)p->size : 0);
	if (asks)
		await_answer(s, s->number - 1);
}

static int send_parts(const char *host, const char *port, char *const *part)
{
	static struct sender s;
	struct sockaddr_in to = address_of(host, port);
	s.fd = udp_socket();
	if (connect(s.fd, (void *)&to, sizeof to))
		fail("burst: connect");
	ready();
	for (uint32_t bytes = 0, datagrams = 0; *part && s.unanswered < UNANSWERED_MAX; part++) {
		struct part now = part_of(part[0]), next = {0};
		if (part[1])
			next = part_of(part[1]);
		bytes += now.bytes;
		datagrams += now.datagrams;
		bool asks = bytes + next.bytes > WINDOW_BYTES || datagrams + next.datagrams > WINDOW_DATAGRAMS;
		send_part(&s, &now, asks);
		bytes = asks ? 0 : bytes;
		datagrams = asks ? 0 : datagrams;
	}
	printf("{\"sent\":%u,\"unanswered\":%u}\n", s.number, s.unanswered);
	return 0;
}

static int send_raw(const char *host, const char *port, const char *segment)
{
	static unsigned char data[DATAGRAM_MAX];
	struct sockaddr_in to = address_of(host, port);
	size_t bytes = fread(data, 1, sizeof data, stdin);
	int fd = udp_socket();
	if (connect(fd, (void *)&to, sizeof to))
		fail("burst: connect");
	send_message(fd, data, bytes, (uint16_t)atoi(segment));
	return 0;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	if (argc == 3 && !strcmp(mode, "receive"))
		return receive(argv[2]);
	if (argc > 4 && !strcmp(mode, "send"))
		return send_parts(argv[2], argv[3], argv + 4);
	if (argc == 5 && !strcmp(mode, "raw"))
		return send_raw(argv[2], argv[3], argv[4]);
	fprintf(stderr, "burst: unknown mode, see the head of burst.c\n");
	return 64;
}
