/* Exceptions: errno becomes an Error with `code`, `errno` and `syscall`, as Node's own modules throw it. */
#include "addon.h"

#include <stdio.h>
#include <string.h>

bool ok(napi_env env, napi_status status)
{
	bool pending = false;
	if (status == napi_ok)
		return true;
	if (napi_is_exception_pending(env, &pending) == napi_ok && !pending)
		napi_throw_error(env, NULL, "a Node-API call failed");
	return false;
}

const char *errno_name(int err)
{
	const char *name = strerrorname_np(err);
	return name ? name : "EUNKNOWN";
}

napi_value throw_errno(napi_env env, int err, const char *syscall, const char *subject)
{
	const char *why = strerrordesc_np(err);
	char text[512];
	napi_value code, message, error, number;

	snprintf(text, sizeof text, "%s: %s, %s%s%s%s", errno_name(err), why ? why : "unknown error", syscall,
		 subject ? " '" : "", subject ? subject : "", subject ? "'" : "");
	if (ok(env, napi_create_string_utf8(env, errno_name(err), NAPI_AUTO_LENGTH, &code)) &&
	    ok(env, napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message)) &&
	    ok(env, napi_create_error(env, code, message, &error)) &&
	    /* Node's own errors carry it negated. */
	    ok(env, napi_create_int32(env, -err, &number)) &&
	    ok(env, napi_set_named_property(env, error, "errno", number))) {
		add_string(env, error, "syscall", syscall);
		ok(env, napi_throw(env, error));
	}
	return NULL;
}

napi_value throw_type(napi_env env, const char *name, const char *expected)
{
	char text[256];
	snprintf(text, sizeof text, "%s must be %s", name, expected);
	napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", text);
	return NULL;
}
