/*
 * Request and response, one at a time, in UDP: how long a round trip takes. Asked as often as it can be, or with a pause
 * after each answer: who asks without one is no quiet flow. One without an answer counts as long as it was waited for.
 *
 *   echo serve PORT                                        prints "ready", answers for ever
 *   echo ask ADDRESS PORT WARM-UP-MS SECONDS [PAUSE-US]    prints one line of JSON: count, lost, and p50, p99, p999 and
 *                                                          max in microseconds
 */
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define BYTES 64
#define SAMPLES_MAX 4000000
#define LIMIT_US 500000

struct trips {
	uint64_t lost;
	size_t count;
	uint32_t ns[SAMPLES_MAX];
};

static uint64_t ns_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int serve(int fd, struct sockaddr_in *own)
{
	struct sockaddr_in from;
	uint8_t bytes[BYTES];

	if (bind(fd, (struct sockaddr *)own, sizeof *own) < 0) {
		perror("echo: bind");
		return 1;
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		socklen_t room = sizeof from;
		ssize_t got = recvfrom(fd, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &room);

		if (got > 0 && sendto(fd, bytes, (size_t)got, 0, (struct sockaddr *)&from, room) < 0)
			perror("echo: sendto");
	}
}

/* An answer that comes after the limit belongs to a request given up: its number tells. */
static bool answered(int fd, uint64_t number)
{
	uint64_t words[BYTES / sizeof(uint64_t)];

	while (recv(fd, words, sizeof words, 0) > 0) {
		if (words[0] == number)
			return true;
	}
	return false;
}

static void ask(int fd, struct trips *t, uint64_t from_ns, uint64_t until_ns, long pause_us)
{
	const struct timespec pause = { .tv_sec = pause_us / 1000000, .tv_nsec = pause_us % 1000000 * 1000 };
	uint64_t words[BYTES / sizeof(uint64_t)] = { 0 };

	for (uint64_t begin = ns_now(); begin < until_ns && t->count < SAMPLES_MAX; begin = ns_now()) {
		words[0]++;
		bool arrived = send(fd, words, sizeof words, 0) > 0 && answered(fd, words[0]);
		uint64_t end = ns_now(), took_ns = end - begin;
		if (pause_us > 0)
			nanosleep(&pause, NULL);
		if (end < from_ns)
			continue;
		t->ns[t->count++] = (uint32_t)took_ns;
		t->lost += !arrived;
	}
}

static int by_size(const void *a, const void *b)
{
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static double percentile_us(const struct trips *t, double share)
{
	return t->count == 0 ? 0 : (double)t->ns[(size_t)(share * (double)(t->count - 1))] / 1000;
}

int main(int argc, char **argv)
{
	static struct trips t;
	struct sockaddr_in address = { .sin_family = AF_INET };
	const struct timeval limit = { .tv_usec = LIMIT_US };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (argc == 3 && strcmp(argv[1], "serve") == 0) {
		address.sin_port = htons((uint16_t)atoi(argv[2]));
		return serve(fd, &address);
	}
	if ((argc != 6 && argc != 7) || strcmp(argv[1], "ask") != 0 || inet_pton(AF_INET, argv[2], &address.sin_addr) != 1) {
		fputs("usage: echo serve PORT | echo ask ADDRESS PORT WARM-UP-MS SECONDS [PAUSE-US]\n", stderr);
		return 64;
	}
	address.sin_port = htons((uint16_t)atoi(argv[3]));
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0 ||
	    connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
		perror("echo: connect");
		return 1;
	}
	uint64_t from_ns = ns_now() + (uint64_t)atol(argv[4]) * 1000000u;
	ask(fd, &t, from_ns, from_ns + (uint64_t)(atof(argv[5]) * 1e9), argc == 7 ? atol(argv[6]) : 0);
	qsort(t.ns, t.count, sizeof t.ns[0], by_size);
	printf("{\"count\":%zu,\"lost\":%" PRIu64 ",\"p50\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}\n", t.count,
	       t.lost, percentile_us(&t, 0.5), percentile_us(&t, 0.99), percentile_us(&t, 0.999), percentile_us(&t, 1));
	return 0;
}
