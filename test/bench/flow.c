/*
 * One flow of numbered datagrams, as fast as the sender can, and what became of it.
 *
 *   flow receive PORT                       prints "ready"; after SIGTERM and 100 ms of silence its report
 *   flow send ADDRESS PORT BYTES SECONDS [RATE]    prints its report; RATE in datagrams a second, else all it can
 *
 * Reports are one line of JSON.
 */
#include "../support/until-told.h"

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

#define BATCH 32
#define BYTES_MAX 9000
#define BUFFER_BYTES (4 << 20)
#define SILENCE_SECONDS 0.1
/* Between two looks at the socket: waking the receiver for every datagram would be most of what is measured. */
#define PAUSE_NS 500000

struct flow {
	struct sockaddr_in address;
	struct iovec iov[BATCH];
	struct mmsghdr message[BATCH];
	uint8_t bytes[BATCH][BYTES_MAX];
};

static double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Of this process, to the nanosecond: what the kernel counts by ticks is too coarse for a light load. */
static double cpu_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void prepare(struct flow *f, size_t bytes)
{
	for (size_t i = 0; i < BATCH; i++) {
		f->iov[i] = (struct iovec){ .iov_base = f->bytes[i], .iov_len = bytes };
		f->message[i].msg_hdr = (struct msghdr){ .msg_iov = &f->iov[i], .msg_iovlen = 1 };
	}
}

static int receive(struct flow *f, int fd)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NS };
	const int buffer = BUFFER_BYTES;
	uint64_t received = 0, reordered = 0, next = 0, number;
	double first = 0, last = 0, told = 0;

	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
	if (bind(fd, (struct sockaddr *)&f->address, sizeof f->address) < 0) {
		perror("flow: bind");
		return 1;
	}
	prepare(f, BYTES_MAX);
	puts("ready");
	fflush(stdout);
	while (told == 0 || seconds_now() - (told > last ? told : last) < SILENCE_SECONDS) {
		int count = recvmmsg(fd, f->message, BATCH, MSG_DONTWAIT, NULL);

		for (int i = 0; i < count; i++) {
			memcpy(&number, f->bytes[i], sizeof number);
			reordered += number < next;
			next = number < next ? next : number + 1;
		}
		if (count > 0) {
			last = seconds_now();
			first = received == 0 ? last : first;
			received += (uint64_t)count;
		}
		if (told == 0 && told_to_stop)
			told = seconds_now();
		if (count < BATCH)
			nanosleep(&pause, NULL);
	}
	printf("{\"received\":%" PRIu64 ",\"reordered\":%" PRIu64 ",\"seconds\":%.6f,\"cpu\":%.6f}\n", received, reordered,
	       last - first, cpu_seconds());
	return 0;
}

/* Waits until so many may have been sent at that rate. */
static void pace(double begin, uint64_t sent, double rate)
{
	const double wait = begin + (double)sent / rate - seconds_now();
	const struct timespec pause = { .tv_sec = (time_t)wait, .tv_nsec = (long)((wait - (double)(time_t)wait) * 1e9) };

	if (wait > 0)
		nanosleep(&pause, NULL);
}

static int send_all(struct flow *f, int fd, size_t bytes, double seconds, double rate)
{
	const double begin = seconds_now(), end = begin + seconds;
	uint64_t sent = 0;

	if (connect(fd, (struct sockaddr *)&f->address, sizeof f->address) < 0) {
		perror("flow: connect");
		return 1;
	}
	prepare(f, bytes);
	while (seconds_now() < end && !told_to_stop) {
		for (uint64_t i = 0; i < BATCH; i++) {
			uint64_t number = sent + i;
			memcpy(f->bytes[i], &number, sizeof number);
		}
		int count = sendmmsg(fd, f->message, BATCH, 0);
		if (count > 0)
			sent += (uint64_t)count;
		if (rate > 0)
			pace(begin, sent, rate);
	}
	printf("{\"sent\":%" PRIu64 ",\"seconds\":%.6f,\"cpu\":%.6f}\n", sent, seconds_now() - begin, cpu_seconds());
	return 0;
}

int main(int argc, char **argv)
{
	static struct flow f;
	const bool sends = (argc == 6 || argc == 7) && strcmp(argv[1], "send") == 0;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	long bytes;

	stop_when_told();
	f.address.sin_family = AF_INET;
	if (argc == 3 && strcmp(argv[1], "receive") == 0) {
		f.address.sin_port = htons((uint16_t)atoi(argv[2]));
		return receive(&f, fd);
	}
	bytes = sends ? atol(argv[4]) : 0;
	if (bytes < (long)sizeof(uint64_t) || bytes > BYTES_MAX || inet_pton(AF_INET, argv[2], &f.address.sin_addr) != 1) {
		fputs("usage: flow receive PORT | flow send ADDRESS PORT BYTES SECONDS [RATE]\n", stderr);
		return 64;
	}
	f.address.sin_port = htons((uint16_t)atoi(argv[3]));
	return send_all(&f, fd, (size_t)bytes, atof(argv[5]), argc == 7 ? atof(argv[6]) : 0);
}
