/*
 * What all files of the addon use: exceptions, arguments, results. A reader throws a JavaScript exception and returns
 * false if the value is not the expected one. A function that gets false or NULL closes what it opened and returns NULL
 * at once.
 */
#ifndef TARTAN_ADDON_H
#define TARTAN_ADDON_H

#define NAPI_VERSION 8
#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The longest file name that is taken from JavaScript, with its NUL. */
#define PATH_BYTES 4096

void tun_init(napi_env env, napi_value exports);
void udp_init(napi_env env, napi_value exports);
void steering_init(napi_env env, napi_value exports);
void kernel_path_init(napi_env env, napi_value exports);
void table_init(napi_env env, napi_value exports);
void adopt_init(napi_env env, napi_value exports);
void netlink_init(napi_env env, napi_value exports);
void icmp_init(napi_env env, napi_value exports);
void watch_init(napi_env env, napi_value exports);
void system_init(napi_env env, napi_value exports);
void kernel_link_init(napi_env env, napi_value exports);
void kernel_filter_init(napi_env env, napi_value exports);

/*
 * watch.c: how a watch reads one datagram; -1 with an errno, as recv(2) does. It sets whether the datagram was cut, and
 * whether it is of a sender that is not listened to.
 */
typedef ssize_t (*watch_receive)(int fd, uint8_t *buffer, size_t size, bool *truncated, bool *foreign);
/* The function `watch` of lib/native.ts, with a reading of its own. */
napi_value open_watch(napi_env env, napi_callback_info info, watch_receive receive);

/* napi-values.c: exceptions. */

/* True for napi_ok. For any other status an exception is pending afterwards. */
bool ok(napi_env env, napi_status status);
/* Throws an Error as Node's modules do; `subject` is the file, link or address at fault, or NULL. Returns NULL. */
napi_value throw_errno(napi_env env, int err, const char *syscall, const char *subject);
napi_value throw_type(napi_env env, const char *name, const char *expected);
/* errno-names.c: the name of an errno, such as "EBUSY"; a constant. */
const char *errno_name(int err);

/* napi-values.c: arguments. */

/* Exactly `count` arguments; a missing one reads as undefined. */
bool read_arguments(napi_env env, napi_callback_info info, size_t count, napi_value *arguments);
/* The same, and the data that was wrapped in `this`. NULL after an exception, also when `this` has not this tag. */
void *read_this(napi_env env, napi_callback_info info, size_t count, napi_value *arguments, const napi_type_tag *tag,
		const char *expected);
bool read_u32(napi_env env, napi_value value, const char *name, uint32_t *result);
bool read_u16(napi_env env, napi_value value, const char *name, uint16_t *result);
/* A positive number of bytes or milliseconds that fits an int. */
bool read_int(napi_env env, napi_value value, const char *name, int *result);
bool read_descriptor(napi_env env, napi_value value, int *result);
bool read_bool(napi_env env, napi_value value, const char *name, bool *result);
/* At most size - 1 bytes and no NUL inside. */
bool read_text(napi_env env, napi_value value, const char *name, char *text, size_t size);
bool read_number(napi_env env, napi_value value, const char *name, double *result);

/* napi-values.c: results. */

void add_function(napi_env env, napi_value object, const char *name, napi_callback function);
void add_string(napi_env env, napi_value object, const char *name, const char *text);
void add_number(napi_env env, napi_value object, const char *name, double number);
void add_descriptors(napi_env env, napi_value object, const char *name, const int *descriptors, size_t count);
napi_value new_object(napi_env env);
napi_value new_number(napi_env env, double number);
/* A number for JavaScript. It closes the descriptor if it returns NULL. */
napi_value new_descriptor(napi_env env, int fd);
/* The object, or NULL if an add_ function has left an exception pending. */
napi_value finished(napi_env env, napi_value object);

#endif
