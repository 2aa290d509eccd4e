/*
 * Who talks to whom, and as whom: small questions in TCP and UDP whose answer is the source address that the asked one
 * saw. Static, so that it also runs as the command of a container whose image has nothing else.
 *
 *   serve PORT...    answers on these ports of every address until SIGTERM; "TOKEN SOURCE" on standard output for every
 *                    question, also where the answer gets lost
 *   ask MS           lines "TOKEN tcp|udp ADDRESS PORT" on standard input, all asked at once; "TOKEN RESULT" for each:
 *                    the answer, "refused", "unreachable", or "silence" after so many milliseconds
 *
 * A datagram is answered from the address that it was sent to, and taken from there only.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORTS_MAX 16
#define QUESTIONS_MAX 256
#define TOKEN_MAX 32
#define ANSWER_MAX INET_ADDRSTRLEN
/* A datagram may be lost on a busy machine. */
#define AGAIN_MS 250
#define PATIENCE_S 5u

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void end(int number)
{
	(void)number;
	_exit(0);
}

static uint16_t port_of(const char *text)
{
	char *rest;
	unsigned long value = strtoul(text, &rest, 10);
	if (!*text || *rest || value == 0 || value > 65535) {
		fprintf(stderr, "flows: bad port '%s', expected 1 to 65535\n", text);
		exit(64);
	}
	return (uint16_t)value;
}

static int64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* One write, so that the lines of several processes do not mix. */
static void say(const char *token, const char *word)
{
	char line[TOKEN_MAX + ANSWER_MAX + 2];
	int n = snprintf(line, sizeof line, "%s %s\n", token, word);
	if (write(STDOUT_FILENO, line, (size_t)n) != n)
		exit(1);
}

static int listening(int type, uint16_t port)
{
	struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
	int one = 1, fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) || bind(fd, (void *)&any, sizeof any))
		fail("flows: bind");
	if (type == SOCK_STREAM ? listen(fd, 64) : setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof one))
		fail("flows: listen");
	return fd;
}

static void answer_stream(int listener)
{
	struct sockaddr_in from;
	socklen_t length = sizeof from;
	char token[TOKEN_MAX], source[ANSWER_MAX];
	int fd = accept(listener, (void *)&from, &length);
	if (fd < 0)
		return;
	if (fork() != 0) {
		close(fd);
		return;
	}
	alarm(PATIENCE_S);
	inet_ntop(AF_INET, &from.sin_addr, source, sizeof source);
	ssize_t n = recv(fd, token, sizeof token - 1, 0);
	if (n <= 0)
		_exit(0);
	token[n] = 0;
	say(token, source);
	send(fd, source, strlen(source), MSG_NOSIGNAL);
	_exit(0);
}

static void answer_datagram(int fd)
{
	struct sockaddr_in from;
	char token[TOKEN_MAX], source[ANSWER_MAX];
	/* IP_PKTINFO of the question, ipi_spec_dst in it, is what the answer is sent with (ip(7)). */
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(struct in_pktinfo))];
	} control;
	struct iovec question = {token, sizeof token - 1}, reply = {source, 0};
	struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &question, .msg_iovlen = 1,
				 .msg_control = &control, .msg_controllen = sizeof control};
	ssize_t n = recvmsg(fd, &message, MSG_DONTWAIT);
	if (n <= 0)
		return;
	token[n] = 0;
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	if (header && header->cmsg_type == IP_PKTINFO)
		((struct in_pktinfo *)(void *)CMSG_DATA(header))->ipi_ifindex = 0;
	inet_ntop(AF_INET, &from.sin_addr, source, sizeof source);
	say(token, source);
	reply.iov_len = strlen(source);
	message.msg_iov = &reply;
	sendmsg(fd, &message, MSG_NOSIGNAL);
}

static int serve(int count, char **ports)
{
	struct pollfd p[2 * PORTS_MAX];
	nfds_t n = 0;
	if (count > PORTS_MAX)
		return 64;
	/* Process 1 of a container hears only what it has a handler for. */
	signal(SIGTERM, end);
	signal(SIGCHLD, SIG_IGN);
	for (int i = 0; i < count; i++) {
		p[n++] = (struct pollfd){.fd = listening(SOCK_STREAM, port_of(ports[i])), .events = POLLIN};
		p[n++] = (struct pollfd){.fd = listening(SOCK_DGRAM, port_of(ports[i])), .events = POLLIN};
	}
	say("ready", "-");
	for (;;) {
		if (poll(p, n, -1) < 0 && errno != EINTR)
			fail("flows: poll");
		for (nfds_t i = 0; i < n; i++) {
			if (!(p[i].revents & POLLIN))
				continue;
			if (i % 2 == 0)
				answer_stream(p[i].fd);
			else
				answer_datagram(p[i].fd);
		}
	}
}

struct question {
	char token[TOKEN_MAX];
	bool stream, asked;
};

static const char *word_of(int error)
{
	return error == ECONNREFUSED ? "refused" : error == EHOSTUNREACH || error == ENETUNREACH ? "unreachable" : strerror(error);
}

/* -1 and errno when the kernel says no at once */
static int open_question(struct question *q, const char *line)
{
	char kind[4], address[ANSWER_MAX], port[6];
	struct sockaddr_in to = {.sin_family = AF_INET};
	if (sscanf(line, "%31s %3s %15s %5s", q->token, kind, address, port) != 4 || inet_pton(AF_INET, address, &to.sin_addr) != 1) {
		fprintf(stderr, "flows: bad question '%s', expected TOKEN tcp|udp ADDRESS PORT\n", line);
		exit(64);
	}
	to.sin_port = htons(port_of(port));
	q->stream = !strcmp(kind, "tcp");
	int fd = socket(AF_INET, (q->stream ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK, 0);
	if (fd < 0)
		fail("flows: socket");
	if (!connect(fd, (void *)&to, sizeof to) || errno == EINPROGRESS)
		return fd;
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}

/* True when it is decided. */
static bool advance(struct question *q, int fd)
{
	char answer[ANSWER_MAX];
	if (q->stream && !q->asked) {
		q->asked = true;
		if (send(fd, q->token, strlen(q->token), MSG_NOSIGNAL) < 0) {
			say(q->token, word_of(errno));
			return true;
		}
		return false;
	}
	ssize_t n = recv(fd, answer, sizeof answer - 1, MSG_DONTWAIT);
	if (n < 0 && errno == EAGAIN)
		return false;
	answer[n < 0 ? 0 : n] = 0;
	say(q->token, n < 0 ? word_of(errno) : n == 0 ? "closed" : answer);
	return true;
}

static void send_datagrams(const struct question *q, const struct pollfd *p, nfds_t n)
{
	/* An error of an earlier one is reported here or by recv: recv comes first. */
	for (nfds_t i = 0; i < n; i++)
		if (p[i].fd >= 0 && !q[i].stream)
			send(p[i].fd, q[i].token, strlen(q[i].token), MSG_NOSIGNAL);
}

static int ask(int64_t patience_ms)
{
	static struct question q[QUESTIONS_MAX];
	static struct pollfd p[QUESTIONS_MAX];
	char line[128];
	nfds_t n = 0, open = 0;
	for (; n < QUESTIONS_MAX && fgets(line, sizeof line, stdin); n++) {
		p[n].fd = open_question(&q[n], line);
		open += p[n].fd >= 0;
		if (p[n].fd < 0)
			say(q[n].token, word_of(errno));
	}
	int64_t end_ms = now_ms() + patience_ms, again_ms = 0;
	for (int64_t now; open > 0 && (now = now_ms()) < end_ms;) {
		if (now >= again_ms) {
			send_datagrams(q, p, n);
			again_ms = now + AGAIN_MS;
		}
		for (nfds_t i = 0; i < n; i++)
			p[i].events = q[i].stream && !q[i].asked ? POLLOUT : POLLIN;
		if (poll(p, n, (int)((again_ms < end_ms ? again_ms : end_ms) - now)) < 0)
			fail("flows: poll");
		for (nfds_t i = 0; i < n; i++) {
			if (p[i].fd < 0 || !p[i].revents || !advance(&q[i], p[i].fd))
				continue;
			close(p[i].fd);
			p[i].fd = -1;
			open--;
		}
	}
	for (nfds_t i = 0; i < n; i++)
		if (p[i].fd >= 0)
			say(q[i].token, "silence");
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "serve"))
		return serve(argc - 2, argv + 2);
	if (argc == 3 && !strcmp(argv[1], "ask"))
		return ask(atoi(argv[2]));
	fprintf(stderr, "flows: unknown mode, see the head of flows.c\n");
	return 64;
}
