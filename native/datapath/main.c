/*
 * tartan-datapath: carries packets between the TUN queues and the UDP sockets that it inherits, by the table that
 * tartand publishes in shared memory. Before the first packet it becomes an unprivileged user and gives up every system
 * call that it does not need. It reports an error at its start as one line on the status pipe; later there are counters
 * only.
 *
 *   argv -> map the files -> drop privileges -> start threads -> seccomp -> close status -> forward until drained
 */
#include "takeover-socket.h"
#include "threads.h"
#include "sandbox.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STDERR_END 3

/* Writes the error to the status pipe and ends, with _exit: nothing is to be flushed, and no handler is to run. */
static _Noreturn void fail(int status, const char *step, int err)
{
	char line[160];
	int bytes = snprintf(line, sizeof line, "%s: %s (errno %d)\n", step, strerror(err), err);

	/* If the pipe is gone too, only the exit code tells. */
	_exit(bytes > 0 && write(status, line, (size_t)bytes) == bytes ? EXIT_FAILURE : EXIT_FAILURE + 1);
}

static void announce(const struct options *o, struct counters_file *counters, const struct hello *hello,
		     const struct threads *threads)
{
	for (size_t i = o->wake.count; i < THREADS_MAX; i++)
		atomic_store(&counters->thread[i].running, 0);
	atomic_store(&counters->threads, hello->threads);
	atomic_store(&counters->features, threads->features);
	atomic_store(&counters->refused, threads->refused);
	atomic_store(&counters->pid, hello->pid);
}

/* Does everything that comes before the first packet. Returns 0 or an errno with the step that failed. */
static int start(const struct options *o, struct threads *threads, struct hello *hello, const char **step)
{
	struct shared_files files;
	int err = shared_files_open(&files, o->routes, o->counters, step);

	if (err != 0)
		return err;
	*step = "descriptors";
	err = options_take_descriptors(o);
	if (err == 0)
		err = threads_prepare(threads, o, &files, step);
	if (err == 0)
		err = sandbox_drop(o->uid, o->gid, step);
	if (err != 0)
		return err;
	takeover_socket_hello(hello, o);
	announce(o, files.counters, hello, threads);
	*step = "threads";
	err = threads_start(threads);
	if (err != 0)
		return err;
	*step = "seccomp";
	return sandbox_install_filter(&files.counters->denied_call);
}

int main(int argc, char **argv)
{
	struct options o;
	struct hello hello;
	const char *step = "arguments";

	signal(SIGPIPE, SIG_IGN);
	if (!options_parse(&o, argc, argv))
		fail(argc > 1 && atoi(argv[1]) >= STDERR_END ? atoi(argv[1]) : STDERR_FILENO, step, EINVAL);
	/* On the heap, because it contains the limiter's table. */
	struct threads *threads = calloc(1, sizeof *threads);
	int err = threads == NULL ? ENOMEM : start(&o, threads, &hello, &step);
	if (err != 0)
		fail(o.status, step, err);
	close(o.status);
	threads_release(threads);
	takeover_socket_serve(&o, &hello, threads->done);
	threads_join(threads);
	_exit(0);
}
