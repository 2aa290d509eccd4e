/*
 * One flow of numbered datagrams that starts from silence at full speed, again and again, and the order it came in.
 *
 *   bursts receive PORT                                 prints "ready"; after SIGTERM and 100 ms of silence its report
 *   bursts send ADDRESS PORT BYTES COUNT ROUNDS QUIET   COUNT datagrams, QUIET ms of silence, ROUNDS times; its report
 *
 * The sender has the port number that it sends to. A report is one line of JSON: `reordered` were passed by datagrams of
 * their own round, `acrossSilence` by those of a later one; `late` are the first of both, as [number, highest before].
 */
#include "until-told.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 32u
#define BYTES_MAX 9000u
#define NUMBERS_MAX (1u << 22)
#define LATE_SHOWN 8u
#define BUFFER_BYTES (64 << 20)
#define SILENCE_NS 100000000u
#define PAUSE_NS 200000

/* How a datagram begins. */
struct head {
	uint32_t number;
	uint32_t round;
	uint64_t sent_ns; /* CLOCK_MONOTONIC */
};

struct flow {
	struct iovec iov[BATCH];
	struct mmsghdr message[BATCH];
	uint8_t bytes[BATCH][BYTES_MAX];
};

struct arrivals {
	uint8_t seen[NUMBERS_MAX / 8];
	uint32_t received, duplicates, reordered, across_silence, next, round;
	uint32_t late[LATE_SHOWN][2];
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void prepare(struct flow *f, size_t bytes)
{
	for (size_t i = 0; i < BATCH; i++) {
		f->iov[i] = (struct iovec){ .iov_base = f->bytes[i], .iov_len = bytes };
		f->message[i].msg_hdr = (struct msghdr){ .msg_iov = &f->iov[i], .msg_iovlen = 1 };
	}
}

static void arrive(struct arrivals *a, const struct head *h)
{
	if (h->number >= NUMBERS_MAX)
		return;
	uint8_t bit = (uint8_t)(1u << h->number % 8);
	a->duplicates += (a->seen[h->number / 8] & bit) != 0;
	a->seen[h->number / 8] |= bit;
	a->received++;
	if (h->number >= a->next) {
		a->next = h->number + 1;
		a->round = h->round;
		return;
	}
	uint32_t so_far = a->reordered + a->across_silence;
	if (so_far < LATE_SHOWN) {
		a->late[so_far][0] = h->number;
		a->late[so_far][1] = a->next - 1;
	}
	*(h->round == a->round ? &a->reordered : &a->across_silence) += 1;
}

static void report(const struct arrivals *a)
{
	uint32_t late = a->reordered + a->across_silence;

	printf("{\"received\":%" PRIu32 ",\"duplicates\":%" PRIu32 ",\"reordered\":%" PRIu32 ",\"acrossSilence\":%" PRIu32
	       ",\"late\":[",
	       a->received, a->duplicates, a->reordered, a->across_silence);
	for (uint32_t i = 0; i < late && i < LATE_SHOWN; i++)
		printf("%s[%" PRIu32 ",%" PRIu32 "]", i == 0 ? "" : ",", a->late[i][0], a->late[i][1]);
	puts("]}");
}

static int receive(struct flow *f, int fd, struct sockaddr_in *address)
{
	static struct arrivals a;
	const struct timespec pause = { .tv_nsec = PAUSE_NS };
	const int buffer = BUFFER_BYTES;
	uint64_t quiet_since = 0;

	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
	if (bind(fd, (struct sockaddr *)address, sizeof *address) < 0) {
		perror("bursts: bind");
		return 1;
	}
	prepare(f, BYTES_MAX);
	puts("ready");
	fflush(stdout);
	while (quiet_since == 0 || now_ns() - quiet_since < SILENCE_NS) {
		int count = recvmmsg(fd, f->message, BATCH, MSG_DONTWAIT, NULL);
		for (int i = 0; i < count; i++) {
			struct head h;
			memcpy(&h, f->bytes[i], sizeof h);
			arrive(&a, &h);
		}
		if (told_to_stop && (count > 0 || quiet_since == 0))
			quiet_since = now_ns();
		if (count < (int)BATCH)
			nanosleep(&pause, NULL);
	}
	report(&a);
	return 0;
}

static int send_bursts(struct flow *f, int fd, size_t bytes, uint32_t count, uint32_t rounds, long quiet_ms)
{
	const struct timespec quiet = { .tv_sec = quiet_ms / 1000, .tv_nsec = quiet_ms % 1000 * 1000000 };
	uint32_t number = 0;

	prepare(f, bytes);
	for (uint32_t round = 0; round < rounds && !told_to_stop; round++) {
		for (uint32_t left = count; left > 0 && !told_to_stop;) {
			uint32_t batch = left < BATCH ? left : BATCH;
			for (uint32_t i = 0; i < batch; i++) {
				struct head h = { .number = number + i, .round = round, .sent_ns = now_ns() };
				memcpy(f->bytes[i], &h, sizeof h);
			}
			int sent = sendmmsg(fd, f->message, batch, 0);
			if (sent < 0) {
				perror("bursts: send");
				return 1;
			}
			number += (uint32_t)sent;
			left -= (uint32_t)sent;
		}
		nanosleep(&quiet, NULL);
	}
	printf("{\"sent\":%" PRIu32 "}\n", number);
	return 0;
}

int main(int argc, char **argv)
{
	static struct flow f;
	struct sockaddr_in address = { .sin_family = AF_INET };
	const bool sends = argc == 8 && strcmp(argv[1], "send") == 0;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	stop_when_told();
	if (argc == 3 && strcmp(argv[1], "receive") == 0) {
		address.sin_port = htons((uint16_t)atoi(argv[2]));
		return receive(&f, fd, &address);
	}
	long bytes = sends ? atol(argv[4]) : 0;
	if (bytes < (long)sizeof(struct head) || bytes > (long)BYTES_MAX || inet_pton(AF_INET, argv[2], &address.sin_addr) != 1) {
		fputs("usage: bursts receive PORT | bursts send ADDRESS PORT BYTES COUNT ROUNDS QUIET\n", stderr);
		return 64;
	}
	address.sin_port = htons((uint16_t)atoi(argv[3]));
	const struct sockaddr_in own = { .sin_family = AF_INET, .sin_port = address.sin_port };
	if (bind(fd, (const struct sockaddr *)&own, sizeof own) < 0 ||
	    connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
		perror("bursts: bind or connect");
		return 1;
	}
	return send_bursts(&f, fd, (size_t)bytes, (uint32_t)atoi(argv[5]), (uint32_t)atoi(argv[6]), atol(argv[7]));
}
