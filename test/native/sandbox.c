/*
 * sandbox.c as in the release: a forbidden call of any thread kills the process, the needed calls work, and no thread
 * has a capability left.
 */
#include "sandbox.h"
#include "test.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534
#define CHILD_SECONDS 10

/* Root becomes nobody. Any other user stays the same. */
static int drop(void)
{
	const char *step;

	return sandbox_drop(geteuid() == 0 ? NOBODY : geteuid(), geteuid() == 0 ? NOBODY : getegid(), &step);
}

static int try_openat(void)
{
	return openat(AT_FDCWD, "/dev/null", O_RDONLY);
}

static int try_socket(void)
{
	return socket(AF_INET, SOCK_DGRAM, 0);
}

static int try_execve(void)
{
	char *const argv[] = { (char[]){ "true" }, NULL };

	return execve("/bin/true", argv, argv + 1);
}

static int try_mmap(void)
{
	return mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED;
}

static int try_fork(void)
{
	if (syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL) == 0)
		_exit(0);
	return 0;
}

static int try_ptrace(void)
{
	return (int)syscall(SYS_ptrace, 0, 0, 0, 0);
}

static int try_mprotect(void)
{
	return mprotect((void *)4096, 4096, PROT_READ | PROT_EXEC);
}

static int try_kill(void)
{
	return kill(1, 0);
}

static int try_open_by_x32_number(void)
{
	return (int)syscall(0x40000000 + 2, "/dev/null", O_RDONLY);
}

struct attempt {
	const char *name;
	int (*run)(void);
	uint32_t number;
};

/* Shared with the children. */
static _Atomic uint32_t *told;

static const struct attempt forbidden[] = {
	{ "openat", try_openat, SYS_openat },
	{ "socket", try_socket, SYS_socket },
	{ "execve", try_execve, SYS_execve },
	{ "mmap", try_mmap, SYS_mmap },
	{ "fork", try_fork, SYS_clone },
	{ "ptrace", try_ptrace, SYS_ptrace },
	{ "mprotect", try_mprotect, SYS_mprotect },
	{ "kill", try_kill, SYS_kill },
	{ "x32 open", try_open_by_x32_number, 0x40000000 + 2 },
};

struct stage {
	pthread_barrier_t ready;
	int (*run)(void);
};

static void *perform(void *argument)
{
	struct stage *stage = argument;

	pthread_barrier_wait(&stage->ready); /* the thread exists */
	pthread_barrier_wait(&stage->ready); /* the filter is in place */
	stage->run();
	return NULL;
}

static void child(int (*run)(void), bool in_thread)
{
	struct stage stage = { .run = run };
	pthread_t thread;

	/* A filter that fails to kill must lead to a failure, and not to a test that hangs. */
	alarm(CHILD_SECONDS);
	pthread_barrier_init(&stage.ready, NULL, 2);
	if (drop() != 0 || pthread_create(&thread, NULL, perform, &stage) != 0)
		_exit(90);
	pthread_barrier_wait(&stage.ready);
	if (sandbox_install_filter(told) != 0)
		_exit(91);
	if (!in_thread)
		run();
	pthread_barrier_wait(&stage.ready);
	pthread_join(thread, NULL);
	_exit(0);
}

/* Runs `run` in a child with the filter, in its main thread or in another. Returns how the child ended. */
static int end_of(int (*run)(void), bool in_thread)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		child(run, in_thread);
	waitpid(pid, &status, 0);
	return status;
}

static void forbidden_calls_kill(struct suite *s)
{
	for (size_t i = 0; i < sizeof forbidden / sizeof forbidden[0]; i++)
		for (int in_thread = 0; in_thread < 2; in_thread++) {
			atomic_store(told, 0);
			int status = end_of(forbidden[i].run, in_thread != 0);
			CHECK_CASE(s, atomic_load(told) == forbidden[i].number + 1, forbidden[i].name);
			CHECK_CASE(s, WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, forbidden[i].name);
		}
}

static int use_what_is_needed(void)
{
	struct pollfd none = { .fd = -1 };
	struct timespec now;
	char byte;

	if (read(-1, &byte, 1) != -1 || errno != EBADF || write(-1, &byte, 1) != -1 || errno != EBADF)
		_exit(1);
	if (poll(&none, 1, 1) != 0 || syscall(SYS_clock_gettime, CLOCK_BOOTTIME, &now) != 0)
		_exit(2);
	if (recvmmsg(-1, NULL, 0, 0, NULL) != -1 || errno != EBADF || sendmmsg(-1, NULL, 0, 0) != -1 || errno != EBADF)
		_exit(3);
	if (accept4(-1, NULL, NULL, 0) != -1 || errno != EBADF || recv(-1, &byte, 1, 0) != -1 || errno != EBADF)
		_exit(4);
	return 0;
}

static void needed_calls_work(struct suite *s)
{
	for (int in_thread = 0; in_thread < 2; in_thread++) {
		int status = end_of(use_what_is_needed, in_thread != 0);
		CHECK(s, WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
}

static bool line_is(const char *path, const char *key, const char *value)
{
	char line[256];
	bool same = false;
	FILE *f = fopen(path, "r");

	while (f != NULL && fgets(line, sizeof line, f) != NULL) {
		if (strncmp(line, key, strlen(key)) != 0)
			continue;
		char *text = line + strlen(key);
		text += strspn(text, "\t ");
		text[strcspn(text, "\n")] = '\0';
		same = strcmp(text, value) == 0;
	}
	if (f != NULL)
		fclose(f);
	return same;
}

static void check_thread(struct suite *s, const char *path)
{
	CHECK(s, line_is(path, "CapEff:", "0000000000000000"));
	CHECK(s, line_is(path, "CapPrm:", "0000000000000000"));
	CHECK(s, line_is(path, "CapInh:", "0000000000000000"));
	CHECK(s, line_is(path, "CapAmb:", "0000000000000000"));
	CHECK(s, line_is(path, "NoNewPrivs:", "1"));
	CHECK(s, line_is(path, "Seccomp:", "2"));
	if (geteuid() != 0)
		return;
	CHECK(s, line_is(path, "CapBnd:", "0000000000000000"));
	CHECK(s, line_is(path, "Uid:", "65534\t65534\t65534\t65534"));
	CHECK(s, line_is(path, "Gid:", "65534\t65534\t65534\t65534"));
	CHECK(s, line_is(path, "Groups:", "") || line_is(path, "Groups:", " "));
}

/* The pipe on which the child reports, and the one for which it waits. Its `run` has no arguments to pass them. */
#define REPORT_FD 100
#define WAIT_FD 101

static int report_and_wait(void)
{
	char byte = 0;

	if (write(REPORT_FD, &byte, 1) != 1 || read(WAIT_FD, &byte, 1) != 0)
		_exit(5);
	return 0;
}

static void every_thread_is_bare(struct suite *s)
{
	int report[2], hold[2], status = 0;
	unsigned int threads = 0;
	char byte, path[300];

	if (pipe(report) < 0 || pipe(hold) < 0)
		abort();
	pid_t pid = fork();
	if (pid == 0) {
		dup2(report[1], REPORT_FD);
		dup2(hold[0], WAIT_FD);
		close(hold[1]);
		child(report_and_wait, true);
	}
	close(report[1]);
	CHECK(s, read(report[0], &byte, 1) == 1);
	snprintf(path, sizeof path, "/proc/%d/task", pid);
	DIR *tasks = opendir(path);
	for (struct dirent *e = tasks ? readdir(tasks) : NULL; e != NULL; e = readdir(tasks)) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "/proc/%d/task/%s/status", pid, e->d_name);
		check_thread(s, path);
		threads++;
	}
	if (tasks != NULL)
		closedir(tasks);
	CHECK(s, threads == 2);
	close(hold[1]);
	waitpid(pid, &status, 0);
	CHECK(s, WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(report[0]);
	close(hold[0]);
}

static void root_is_refused(struct suite *s)
{
	const char *step;

	CHECK(s, sandbox_drop(0, NOBODY, &step) == EINVAL);
	CHECK(s, sandbox_drop(NOBODY, 0, &step) == EINVAL);
	if (geteuid() != 0)
		CHECK(s, sandbox_drop(geteuid() + 1, getegid(), &step) == EPERM);
}

int main(void)
{
	struct suite s = { .name = "sandbox", .random = 10 };

	told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (told == MAP_FAILED)
		abort();
	forbidden_calls_kill(&s);
	needed_calls_work(&s);
	every_thread_is_bare(&s);
	root_is_refused(&s);
	return suite_end(&s);
}
