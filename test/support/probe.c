/*
 * Traffic for the tests, one mode per run; a report is one line of JSON on standard output.
 *
 *   send DST PORT RATE        prints "ready"; numbered datagrams on an absolute timetable until SIGTERM, then how many
 *   receive PORT              prints "ready"; "?\n" on stdin asks how many have come; "N\n" says how many were sent,
 *                             then it reports
 *   push DST PORT BYTES [BYTES A SECOND]
 *                             one TCP connection with pseudo-random bytes and their checksum; SIGTERM ends it early
 *   serve PORT                prints "ready"; takes one such connection and reports what came and from whom
 *   notified PATH             prints "ready"; then the first datagram that comes to that Unix socket and says READY
 *                             (sd_notify(3))
 *   inject                    lines "SRC SPORT DST DPORT HEX" on stdin become UDP datagrams with that outer source
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define NUMBERS_MAX 4000000u
#define DATAGRAM 64
#define QUIET_MS 300
#define LATE_NS 50000000u
#define BLOCK 65536
#define FRAGMENT 1480u

static volatile sig_atomic_t stopping;

static void on_term(int signal_number)
{
	(void)signal_number;
	stopping = 1;
}

static _Noreturn void fail(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint32_t number_of(const char *text, uint32_t max)
{
	char *end;
	errno = 0;
	unsigned long value = strtoul(text, &end, 10);
	if (errno || *end || end == text || value > max) {
		fprintf(stderr, "probe: bad number %s\n", text);
		exit(64);
	}
	return (uint32_t)value;
}

static struct sockaddr_in address_of(const char *host, const char *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)number_of(port, 65535))};
	if (inet_pton(AF_INET, host, &a.sin_addr) != 1) {
		fprintf(stderr, "probe: bad address %s\n", host);
		exit(64);
	}
	return a;
}

static int bound(int type, const char *port)
{
	struct sockaddr_in a = address_of("0.0.0.0", port);
	int one = 1, fd = socket(AF_INET, type, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) || bind(fd, (void *)&a, sizeof a))
		fail("probe: bind");
	return fd;
}

static int send_numbers(const char *host, const char *port, const char *rate)
{
	struct sockaddr_in to = address_of(host, port);
	uint64_t step = 1000000000u / number_of(rate, 100000), begin = now_ns();
	uint32_t sent = 0, errors = 0;
	unsigned char data[DATAGRAM] = {0};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0)
		fail("probe: socket");
	printf("ready\n");
	fflush(stdout);
	for (; !stopping && sent < NUMBERS_MAX; sent++) {
		uint64_t due = begin + sent * step;
		struct timespec t = {.tv_sec = (time_t)(due / 1000000000u), .tv_nsec = (long)(due % 1000000000u)};
		if (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR && stopping)
			break;
		/* A sender that got no processor goes on at its rate: a burst of what it missed is no steady flow. */
		uint64_t late = now_ns() - due;
		if (late > LATE_NS)
			begin += late;
		memcpy(data, &sent, sizeof sent);
		if (sendto(fd, data, sizeof data, 0, (void *)&to, sizeof to) < 0)
			errors++;
	}
	printf("{\"sent\":%u,\"errors\":%u}\n", sent, errors);
	return 0;
}

/* What has arrived so far. */
struct arrivals {
	unsigned char seen[NUMBERS_MAX];
	uint32_t received, duplicates, reordered, highest;
	uint64_t last_ns, gap_ns;
	struct in_addr source;
	bool other_source;
};

static void arrive(struct arrivals *a, uint32_t number, struct in_addr source)
{
	uint64_t now = now_ns();
	if (a->received == 0)
		a->source = source;
	else if (now - a->last_ns > a->gap_ns)
		a->gap_ns = now - a->last_ns;
	a->last_ns = now;
	a->other_source |= a->source.s_addr != source.s_addr;
	if (number >= NUMBERS_MAX)
		return;
	if (a->seen[number]) {
		a->duplicates++;
		return;
	}
	a->seen[number] = 1;
	if (a->received++ > 0 && number < a->highest)
		a->reordered++;
	else
		a->highest = number;
}

static void report(const struct arrivals *a, uint32_t sent)
{
	uint32_t lost = 0;
	int64_t first = -1, last = -1;
	for (uint32_t i = 0; i < sent && i < NUMBERS_MAX; i++) {
		if (a->seen[i])
			continue;
		if (lost++ == 0)
			first = i;
		last = i;
	}
	printf("{\"sent\":%u,\"received\":%u,\"lost\":%u,\"firstLost\":%" PRId64 ",\"lastLost\":%" PRId64
	       ",\"duplicates\":%u,\"reordered\":%u,\"longestGapMs\":%.1f,\"source\":\"%s\",\"oneSource\":%s}\n",
	       sent, a->received, lost, first, last, a->duplicates, a->reordered, (double)a->gap_ns / 1e6,
	       inet_ntoa(a->source), a->other_source ? "false" : "true");
}

static int receive_numbers(const char *port)
{
	static struct arrivals a;
	int fd = bound(SOCK_DGRAM, port), size = 8 << 20;
	struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
	char line[32] = "";
	bool told = false;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
	/* A second line must wait in the pipe, where poll sees it. */
	setvbuf(stdin, NULL, _IONBF, 0);
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		int n = poll(p, told ? 1 : 2, told ? QUIET_MS : -1);
		if (n == 0)
			break;
		if (n < 0)
			fail("probe: poll");
		if (p[0].revents) {
			unsigned char data[DATAGRAM];
			struct sockaddr_in from;
			socklen_t length = sizeof from;
			uint32_t number;
			if (recvfrom(fd, data, sizeof data, 0, (void *)&from, &length) != DATAGRAM)
				continue;
			memcpy(&number, data, sizeof number);
			arrive(&a, number, from.sin_addr);
		} else if (!told && p[1].revents) {
			if (!fgets(line, sizeof line, stdin))
				return 1;
			line[strcspn(line, "\n")] = 0;
			told = strcmp(line, "?") != 0;
			if (!told) {
				printf("{\"received\":%u}\n", a.received);
				fflush(stdout);
			}
		}
	}
	report(&a, number_of(line, NUMBERS_MAX));
	return 0;
}

/* Order-sensitive sums over 64-bit words: a changed, lost or exchanged word changes them. */
struct checksum {
	uint64_t words, places;
};

static void add_block(struct checksum *c, const unsigned char *data, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 8) {
		uint64_t w = 0;
		memcpy(&w, data + i, bytes - i < 8 ? bytes - i : 8);
		c->words += w;
		c->places += c->words;
	}
}

static void fill_block(unsigned char *data, uint64_t *state)
{
	for (size_t i = 0; i < BLOCK; i += 8) {
		*state ^= *state << 13;
		*state ^= *state >> 7;
		*state ^= *state << 17;
		memcpy(data + i, state, 8);
	}
}

static void print_checksum(uint64_t bytes, const struct checksum *c, const char *source, uint64_t gap_ns)
{
	printf("{\"bytes\":%" PRIu64 ",\"checksum\":\"%016" PRIx64 "%016" PRIx64 "\",\"source\":\"%s\",\"longestGapMs\":%.1f}\n",
	       bytes, c->words, c->places, source, (double)gap_ns / 1e6);
}

static int push(const char *host, const char *port, const char *bytes, const char *rate)
{
	struct sockaddr_in to = address_of(host, port);
	struct checksum c = {0, 0};
	uint64_t total = number_of(bytes, UINT32_MAX), begin = now_ns(), state = begin | 1, done = 0;
	uint64_t ns_per_byte = rate ? 1000000000u / number_of(rate, 1000000000) : 0;
	unsigned char block[BLOCK];
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (void *)&to, sizeof to))
		fail("probe: connect");
	while (done < total && !stopping) {
		uint64_t due = begin + done * ns_per_byte;
		struct timespec t = {.tv_sec = (time_t)(due / 1000000000u), .tv_nsec = (long)(due % 1000000000u)};
		if (ns_per_byte && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL))
			continue;
		size_t size = total - done < BLOCK ? (size_t)(total - done) : BLOCK;
		fill_block(block, &state);
		add_block(&c, block, size);
		for (size_t at = 0; at < size;) {
			ssize_t n = send(fd, block + at, size - at, MSG_NOSIGNAL);
			if (n < 0 && errno == EINTR)
				continue;
			if (n <= 0)
				fail("probe: send");
			at += (size_t)n;
		}
		done += size;
	}
	print_checksum(done, &c, "", 0);
	return 0;
}

static int serve(const char *port)
{
	int fd = bound(SOCK_STREAM, port);
	struct sockaddr_in from;
	socklen_t length = sizeof from;
	struct checksum c = {0, 0};
	unsigned char block[BLOCK];
	uint64_t total = 0, last_ns, gap_ns = 0;
	if (listen(fd, 1))
		fail("probe: listen");
	printf("ready\n");
	fflush(stdout);
	int connection = accept(fd, (void *)&from, &length);
	if (connection < 0)
		fail("probe: accept");
	last_ns = now_ns();
	for (;;) {
		size_t have = 0;
		ssize_t n = 1;
		while (have < BLOCK && (n = recv(connection, block + have, BLOCK - have, 0)) > 0) {
			uint64_t now = now_ns();
			if (now - last_ns > gap_ns)
				gap_ns = now - last_ns;
			last_ns = now;
			have += (size_t)n;
		}
		if (n < 0)
			fail("probe: recv");
		add_block(&c, block, have);
		total += have;
		if (n == 0)
			break;
	}
	print_checksum(total, &c, inet_ntoa(from.sin_addr), gap_ns);
	return 0;
}

static size_t bytes_of(const char *hex, unsigned char *out, size_t max)
{
	size_t n = 0;
	unsigned int byte;
	while (n < max && sscanf(hex + 2 * n, "%2x", &byte) == 1)
		out[n++] = (unsigned char)byte;
	return n;
}

/* A raw socket does not fragment for us (raw(7)). */
static void send_fragments(int fd, const struct iphdr *outer, const unsigned char *payload, size_t bytes)
{
	unsigned char packet[sizeof *outer + FRAGMENT];
	struct iphdr head = *outer;
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = outer->daddr};
	for (size_t at = 0; at < bytes; at += FRAGMENT) {
		size_t size = bytes - at < FRAGMENT ? bytes - at : FRAGMENT;
		unsigned int more = at + size < bytes ? IP_MF : 0;
		head.tot_len = htons((uint16_t)(sizeof head + size));
		head.frag_off = htons((uint16_t)(at / 8 | more));
		memcpy(packet, &head, sizeof head);
		memcpy(packet + sizeof head, payload + at, size);
		if (sendto(fd, packet, sizeof head + size, 0, (void *)&to, sizeof to) < 0)
			fail("probe: inject");
	}
}

static int inject(void)
{
	static char line[140000], hex[140000];
	static unsigned char datagram[65536];
	char from[16], from_port[6], to[16], to_port[6];
	uint16_t id = 1;
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
	if (fd < 0)
		fail("probe: raw socket");
	while (fgets(line, sizeof line, stdin)) {
		hex[0] = 0;
		if (sscanf(line, "%15s %5s %15s %5s %139999s", from, from_port, to, to_port, hex) < 4)
			return 64;
		struct sockaddr_in a = address_of(from, from_port), b = address_of(to, to_port);
		size_t size = sizeof(struct udphdr) + bytes_of(hex, datagram + sizeof(struct udphdr), sizeof datagram - sizeof(struct udphdr));
		/* checksum 0: none (RFC 768) */
		struct udphdr udp = {.source = a.sin_port, .dest = b.sin_port, .len = htons((uint16_t)size)};
		struct iphdr ip = {.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP, .id = htons(id++)};
		ip.saddr = a.sin_addr.s_addr;
		ip.daddr = b.sin_addr.s_addr;
		memcpy(datagram, &udp, sizeof udp);
		send_fragments(fd, &ip, datagram, size);
	}
	return 0;
}

static int notified(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char text[256];
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (fd < 0 || strlen(path) >= sizeof a.sun_path)
		fail("probe: socket");
	strcpy(a.sun_path, path);
	if (bind(fd, (void *)&a, sizeof a))
		fail("probe: bind");
	printf("ready\n");
	fflush(stdout);
	do {
		ssize_t n = recv(fd, text, sizeof text - 1, 0);
		if (n < 0)
			fail("probe: recv");
		text[n] = 0;
	} while (strncmp(text, "READY=", 6));
	printf("%s\n", text);
	return 0;
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = on_term};
	const char *mode = argc > 1 ? argv[1] : "";
	sigaction(SIGTERM, &action, NULL);
	if (argc == 5 && !strcmp(mode, "send"))
		return send_numbers(argv[2], argv[3], argv[4]);
	if ((argc == 5 || argc == 6) && !strcmp(mode, "push"))
		return push(argv[2], argv[3], argv[4], argv[5]);
	sigaction(SIGTERM, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
	if (argc == 3 && !strcmp(mode, "receive"))
		return receive_numbers(argv[2]);
	if (argc == 3 && !strcmp(mode, "serve"))
		return serve(argv[2]);
	if (argc == 3 && !strcmp(mode, "notified"))
		return notified(argv[2]);
	if (argc == 2 && !strcmp(mode, "inject"))
		return inject();
	fprintf(stderr, "probe: unknown mode, see the head of probe.c\n");
	return 64;
}
