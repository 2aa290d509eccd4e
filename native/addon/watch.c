/*
 * A watch: a thread that receives the datagrams of one descriptor and passes them to a listener on the event loop. If
 * the loop is busy and the queue is full, the thread waits. So the memory is bounded, and the kernel counts the
 * overrun.
 *
 * `close`, the end of the descriptor, the garbage collection of the handle and the exit of the environment join the
 * thread, all of them by watch_close(). The caller keeps the descriptor.
 */
#include "addon.h"

#include <errno.h>
#include <linux/netlink.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define QUEUE_MESSAGES 256

static const napi_type_tag watch_tag = { 0x8d2f3c1a5e7b4f60, 0x9a1c0b6d2e4f8371 };

struct message {
	const char *error; /* a constant name, or NULL for bytes */
	bool last;
	size_t length;
	uint8_t bytes[];
};

struct watch {
	napi_env env;
	napi_threadsafe_function listener;
	pthread_t thread;
	bool open;
	int fd;
	int stop; /* eventfd that ends the thread */
	size_t size;
	uint8_t *buffer;
	watch_receive receive;
};

static void watch_at_exit(void *arg);

static void watch_close(struct watch *w)
{
	const uint64_t one = 1;
	if (!w->open)
		return;
	w->open = false;
	napi_remove_env_cleanup_hook(w->env, watch_at_exit, w);
	/* This comes first: it makes a thread that waits for room in the queue return with napi_closing. */
	napi_release_threadsafe_function(w->listener, napi_tsfn_abort);
	while (write(w->stop, &one, sizeof one) < 0 && errno == EINTR)
		;
	pthread_join(w->thread, NULL);
	close(w->stop);
	free(w->buffer);
}

static void watch_at_exit(void *arg)
{
	watch_close(arg);
}

static void watch_finalize(napi_env env, void *data, void *hint)
{
	(void)env;
	(void)hint;
	watch_close(data);
	free(data);
}

/* Returns false if the watch is closing or memory is short. The thread ends then. */
static bool push(struct watch *w, const char *error, bool last, size_t length)
{
	struct message *m = malloc(sizeof *m + length);
	if (!m)
		return false;
	m->error = error;
	m->last = last;
	m->length = length;
	if (length)
		memcpy(m->bytes, w->buffer, length);
	if (napi_call_threadsafe_function(w->listener, m, napi_tsfn_blocking) == napi_ok)
		return !last;
	free(m);
	return false;
}

/* Reads one datagram. A descriptor that is not a socket is read as a stream. */
static ssize_t receive(int fd, uint8_t *buffer, size_t size, bool *truncated, bool *foreign)
{
	struct sockaddr_nl from = { .nl_family = AF_UNSPEC };
	struct iovec iov = { .iov_base = buffer, .iov_len = size };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_name = &from, .msg_namelen = sizeof from };
	ssize_t length = recvmsg(fd, &message, MSG_DONTWAIT);

	*truncated = false;
	*foreign = false;
	if (length < 0 && errno == ENOTSOCK)
		return read(fd, buffer, size);
	/*
	 * recvmsg goes on with a dump of the kernel. If another thread has just ended this dump, the socket's next call
	 * fails with EINVAL (netlink_dump() in Linux); nothing is lost by that.
	 */
	if (length < 0 && errno == EINVAL)
		errno = EAGAIN;
	if (length < 0)
		return length;
	*truncated = message.msg_flags & MSG_TRUNC;
	/* Only the kernel has netlink port 0 (netlink(7)). A message of another sender is ignored. */
	*foreign = message.msg_namelen == sizeof from && from.nl_family == AF_NETLINK && from.nl_pid != 0;
	return length;
}

static bool read_once(struct watch *w)
{
	bool truncated, foreign;
	ssize_t length = w->receive(w->fd, w->buffer, w->size, &truncated, &foreign);
	if (length < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (length < 0)
		return push(w, errno_name(errno), errno != ENOBUFS, 0);
	if (length == 0)
		return push(w, "EOF", true, 0);
	if (foreign)
		return true;
	if (truncated)
		return push(w, errno_name(EMSGSIZE), false, 0);
	return push(w, NULL, false, (size_t)length);
}

static bool wait_and_read(struct watch *w)
{
	struct pollfd ready[2] = { { .fd = w->stop, .events = POLLIN }, { .fd = w->fd, .events = POLLIN } };
	if (poll(ready, 2, -1) < 0)
		return errno == EINTR || push(w, errno_name(errno), true, 0);
	if (ready[0].revents)
		return false;
	if (ready[1].revents & POLLNVAL)
		return push(w, errno_name(EBADF), true, 0);
	return ready[1].revents ? read_once(w) : true;
}

static void *watch_main(void *arg)
{
	while (wait_and_read(arg))
		;
	return NULL;
}

static void call_listener(napi_env env, napi_value listener, const struct message *m)
{
	napi_value argv[2], nobody, thrown;
	bool pending = false;
	napi_status status = napi_get_undefined(env, &nobody);

	argv[0] = nobody;
	argv[1] = nobody;
	if (status == napi_ok)
		status = m->error ? napi_create_string_utf8(env, m->error, NAPI_AUTO_LENGTH, &argv[0])
				  : napi_create_buffer_copy(env, m->length, m->bytes, NULL, &argv[1]);
	if (status == napi_ok)
		napi_call_function(env, nobody, listener, 2, argv, NULL);
	/* Node 20 only warns about a pending exception here. This makes it an uncaught exception like any other. */
	if (napi_is_exception_pending(env, &pending) == napi_ok && pending &&
	    napi_get_and_clear_last_exception(env, &thrown) == napi_ok)
		napi_fatal_exception(env, thrown);
}

/* Runs on the event loop. After a close `env` is NULL for what is left in the queue, and `context` may be freed. */
static void deliver(napi_env env, napi_value listener, void *context, void *data)
{
	struct message *m = data;
	if (env && m->last)
		watch_close(context);
	if (env)
		call_listener(env, listener, m);
	free(m);
}

static struct watch *watch_of(napi_env env, napi_callback_info info)
{
	return read_this(env, info, 0, NULL, &watch_tag, "a watch");
}

static napi_value close_method(napi_env env, napi_callback_info info)
{
	struct watch *w = watch_of(env, info);
	if (w)
		watch_close(w);
	return NULL;
}

static napi_value unref_method(napi_env env, napi_callback_info info)
{
	struct watch *w = watch_of(env, info);
	if (w && w->open)
		ok(env, napi_unref_threadsafe_function(env, w->listener));
	return NULL;
}

/* The thread blocks all signals, which are for the threads of Node. Returns 0 or an errno. */
static int start_thread(struct watch *w)
{
	sigset_t all, before;
	int err;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&w->thread, NULL, watch_main, w);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return err;
}

/* Opens what the thread needs and starts it. After a failure nothing stays open. */
static bool watch_start(napi_env env, struct watch *w, napi_value listener)
{
	napi_value name;
	int err;

	w->buffer = malloc(w->size);
	if (!w->buffer) {
		throw_errno(env, ENOMEM, "malloc", NULL);
		return false;
	}
	w->stop = eventfd(0, EFD_CLOEXEC);
	if (w->stop < 0) {
		throw_errno(env, errno, "eventfd", NULL);
		goto free_buffer;
	}
	if (!ok(env, napi_create_string_utf8(env, "tartan.watch", NAPI_AUTO_LENGTH, &name)) ||
	    !ok(env, napi_create_threadsafe_function(env, listener, NULL, name, QUEUE_MESSAGES, 1, NULL, NULL, w,
						     deliver, &w->listener)))
		goto close_stop;
	err = start_thread(w);
	if (err) {
		throw_errno(env, err, "pthread_create", NULL);
		goto release;
	}
	w->open = true;
	napi_add_env_cleanup_hook(env, watch_at_exit, w);
	return true;
release:
	napi_release_threadsafe_function(w->listener, napi_tsfn_abort);
close_stop:
	close(w->stop);
free_buffer:
	free(w->buffer);
	return false;
}

napi_value open_watch(napi_env env, napi_callback_info info, watch_receive read_datagram)
{
	napi_value argv[3], object;
	napi_valuetype type;
	struct watch *w;
	int fd, size;

	if (!read_arguments(env, info, 3, argv) || !read_descriptor(env, argv[0], &fd) ||
	    !read_int(env, argv[1], "bufferBytes", &size))
		return NULL;
	if (napi_typeof(env, argv[2], &type) != napi_ok || type != napi_function)
		return throw_type(env, "the listener", "a function");
	object = new_object(env);
	w = object ? calloc(1, sizeof *w) : NULL;
	if (!w)
		return object ? throw_errno(env, ENOMEM, "calloc", NULL) : NULL;
	*w = (struct watch){ .env = env, .fd = fd, .stop = -1, .size = (size_t)size };
	w->receive = read_datagram;
	if (!ok(env, napi_wrap(env, object, w, watch_finalize, NULL, NULL))) {
		free(w);
		return NULL;
	}
	add_function(env, object, "close", close_method);
	add_function(env, object, "unref", unref_method);
	if (!ok(env, napi_type_tag_object(env, object, &watch_tag)) || !finished(env, object))
		return NULL;
	return watch_start(env, w, argv[2]) ? object : NULL;
}

static napi_value watch(napi_env env, napi_callback_info info)
{
	return open_watch(env, info, receive);
}

void watch_init(napi_env env, napi_value exports)
{
	add_function(env, exports, "watch", watch);
}
