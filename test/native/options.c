/* options.c and shared-files.c: what a start refuses, and which descriptors it keeps. */
#include "options.h"
#include "shared-files.h"
#include "test.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORDS_MAX 64

static bool parse(const char *line, struct options *o)
{
	char text[512];
	char *argv[WORDS_MAX] = { (char[]){ "tartan-datapath" } };
	int argc = 1;

	snprintf(text, sizeof text, "%s", line);
	for (char *word = strtok(text, " "); word != NULL && argc < WORDS_MAX; word = strtok(NULL, " "))
		argv[argc++] = word;
	return options_parse(o, argc, argv);
}

static void command_line(struct suite *s)
{
	static const char *const bad[] = {
		"", "3", "3 4 5 6 7 8 9", "3 4 5 6 7 8 9 10 -1 11 -1", "3 4 5 6 7 8 9 10 -1 11 -1 12",
		"3 4 5 6 7 8 9 10 -1 11 -1 12 13 14", "3 4 5 6 7 8 9 -1 11 -1 12", "3 4 5 6 7 8 9 10 -1 -1 12",
		"3 4 5 6 7 8 9 10 11 12", "x 4 5 6 7 8 9 10 -1 11 -1 12 13", "3 4 5 6 7 8 9 10 -1 11 -1 12 13x",
		"3 4 5 6 7 8 9 10 -2 11 -1 12 13", "-1 4 5 6 7 8 9 10 -1 11 -1 12 13",
		"3 4 5 6 7 8 9 10 -1 11 -1 12 99999999999999999999", "3 4 5 6 7 8 9 1 2 -1 11 -1 1 2 3", "3 4 5 6 7 8 9 1 2 3 4 5 6 7 8 9 10 -1 11 -1 1 2 3 4 5 6",
		"3 4 5 6 7 8 9 1 2 3 4 5 6 7 8 9 -1 1 2 3 4 5 6 7 8 9 -1 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17",
		"3 4 5 6 7 8 9 10 -1 11 -1 12 13 -1 14",
	};
	struct options o;

	CHECK(s, parse("3 4 5 6 65534 65533 0 10 -1 11 -1 12 13", &o));
	CHECK(s, o.status == 3 && o.routes == 4 && o.counters == 5 && o.listen == 6 && o.owner == 0);
	CHECK(s, o.uid == 65534 && o.gid == 65533);
	CHECK(s, o.tun.count == 1 && o.tun.fd[0] == 10 && o.udp.fd[0] == 11 && o.wake.count == 2 && o.wake.fd[1] == 13);
	CHECK(s, parse("3 4 5 6 7 8 9 20 21 -1 24 25 -1 1 2 3", &o) && o.wake.count == 3);
	CHECK(s, parse("3 4 5 6 7 8 9 20 -1 24 -1 1 2 -1", &o));
	CHECK(s, parse("3 4 5 6 7 8 9 1 2 3 4 5 6 7 8 -1 1 2 3 4 5 6 7 8 -1 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", &o) &&
			 o.tun.count == QUEUES_MAX && o.wake.count == THREADS_MAX - 1);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		CHECK_CASE(s, !parse(bad[i], &o), bad[i]);
}

/* Makes a file in memory, and a read-only descriptor of it. */
static int memory_file(size_t bytes, int *read_only)
{
	char path[64];
	int fd = memfd_create("test", 0);

	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
		abort();
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	*read_only = open(path, O_RDONLY);
	return fd;
}

static void put(int fd, off_t at, uint32_t value)
{
	if (pwrite(fd, &value, sizeof value, at) != (ssize_t)sizeof value)
		abort();
}

static void fill(int routes, int counters)
{
	put(routes, offsetof(struct routes_file, magic), LAYOUT_MAGIC);
	put(routes, offsetof(struct routes_file, version), LAYOUT_VERSION);
	put(routes, offsetof(struct routes_file, size), sizeof(struct routes_file));
	put(routes, offsetof(struct routes_file, subnet_length), 24);
	put(counters, offsetof(struct counters_file, magic), LAYOUT_MAGIC);
	put(counters, offsetof(struct counters_file, version), LAYOUT_VERSION);
	put(counters, offsetof(struct counters_file, size), sizeof(struct counters_file));
	put(counters, offsetof(struct counters_file, counter_count), COUNTER_COUNT);
}

static void files(struct suite *s)
{
	int routes_ro;
	int counters_ro;
	int routes = memory_file(sizeof(struct routes_file), &routes_ro);
	int counters = memory_file(sizeof(struct counters_file), &counters_ro);
	struct shared_files f;
	const char *step;
	const struct { int fd; off_t at; uint32_t wrong; uint32_t right; } words[] = {
		{ routes, offsetof(struct routes_file, magic), 0, LAYOUT_MAGIC },
		{ routes, offsetof(struct routes_file, version), LAYOUT_VERSION + 1, LAYOUT_VERSION },
		{ routes, offsetof(struct routes_file, size), 4096, sizeof(struct routes_file) },
		{ routes, offsetof(struct routes_file, subnet_length), 33, 24 },
		{ routes, offsetof(struct routes_file, network_length), 0xffffffff, 16 },
		{ counters, offsetof(struct counters_file, magic), 0, LAYOUT_MAGIC },
		{ counters, offsetof(struct counters_file, version), LAYOUT_VERSION + 1, LAYOUT_VERSION },
		{ counters, offsetof(struct counters_file, counter_count), COUNTERS_MAX + 1, COUNTER_COUNT },
	};

	fill(routes, counters);
	CHECK(s, shared_files_open(&f, routes_ro, counters, &step) == 0 && f.routes->subnet_length == 24);
	CHECK(s, shared_files_open(&f, routes, counters, &step) == EACCES);
	CHECK(s, shared_files_open(&f, routes_ro, counters_ro, &step) == EACCES && strcmp(step, "counters") == 0);
	CHECK(s, shared_files_open(&f, 999, counters, &step) != 0);
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
		put(words[i].fd, words[i].at, words[i].wrong);
		CHECK(s, shared_files_open(&f, routes_ro, counters, &step) == EPROTO);
		put(words[i].fd, words[i].at, words[i].right);
	}
	/* Other builds of this layout name more counters, or fewer. */
	put(counters, offsetof(struct counters_file, counter_count), COUNTER_COUNT + 1);
	CHECK(s, shared_files_open(&f, routes_ro, counters, &step) == 0);
	CHECK(s, ftruncate(routes, sizeof(struct routes_file) - 1) == 0);
	CHECK(s, shared_files_open(&f, routes_ro, counters, &step) == EPROTO);
	close(routes);
	close(routes_ro);
	close(counters);
	close(counters_ro);
}

/* Runs in a child. Every named descriptor is open and non-blocking afterwards, the others are closed. */
static int take_in_child(void)
{
	struct options o;
	int pipes[8][2];
	char line[128];

	for (int i = 0; i < 8; i++)
		if (pipe(pipes[i]) < 0)
			return 1;
	snprintf(line, sizeof line, "%d %d %d %d 1 1 1 %d -1 %d -1 %d %d", pipes[0][0], pipes[1][0], pipes[2][0], pipes[3][0],
		 pipes[4][0], pipes[5][0], pipes[6][0], pipes[7][0]);
	if (!parse(line, &o) || options_take_descriptors(&o) != 0)
		return 2;
	for (int i = 0; i < 8; i++) {
		int flags = fcntl(pipes[i][0], F_GETFL);
		if (flags < 0 || fcntl(pipes[i][1], F_GETFL) >= 0)
			return 3;
		if (i >= 3 && !(flags & O_NONBLOCK))
			return 4;
	}
	o.wake.fd[0] = 0x7fffffff;
	return options_take_descriptors(&o) == EBADF && fcntl(pipes[0][0], F_GETFL) >= 0 ? 0 : 5;
}

static void descriptors(struct suite *s)
{
	int status = 0;
	pid_t child = fork();

	if (child == 0)
		_exit(take_in_child());
	waitpid(child, &status, 0);
	CHECK(s, WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
	struct suite s = { .name = "options", .random = 7 };

	command_line(&s);
	files(&s);
	descriptors(&s);
	return suite_end(&s);
}
