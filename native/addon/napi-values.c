/*
 * Values of JavaScript: exceptions, arguments and results. The readers of arguments are strict: a wrong value is a
 * TypeError here and never a wrapped number in a system call.
 */
#include "addon.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool ok(napi_env env, napi_status status)
{
	bool pending = false;
	if (status == napi_ok)
		return true;
	if (napi_is_exception_pending(env, &pending) == napi_ok && !pending)
		napi_throw_error(env, NULL, "a Node-API call failed");
	return false;
}

napi_value throw_errno(napi_env env, int err, const char *syscall, const char *subject)
{
	char text[1536];
	napi_value code, message, error, number;

	snprintf(text, sizeof text, "%s: %s, %s%s%s%s", errno_name(err), strerror(err), syscall,
		 subject ? " '" : "", subject ? subject : "", subject ? "'" : "");
	if (ok(env, napi_create_string_utf8(env, errno_name(err), NAPI_AUTO_LENGTH, &code)) &&
	    ok(env, napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message)) &&
	    ok(env, napi_create_error(env, code, message, &error)) &&
	    /* Node's own errors have a negative errno. */
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

bool read_arguments(napi_env env, napi_callback_info info, size_t count, napi_value *arguments)
{
	return ok(env, napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
}

void *read_this(napi_env env, napi_callback_info info, size_t count, napi_value *arguments, const napi_type_tag *tag,
		const char *expected)
{
	napi_value self;
	bool same = false;
	void *data;
	if (!ok(env, napi_get_cb_info(env, info, &count, arguments, &self, NULL)))
		return NULL;
	if (napi_check_object_type_tag(env, self, tag, &same) == napi_ok && same &&
	    napi_unwrap(env, self, &data) == napi_ok)
		return data;
	throw_type(env, "this", expected);
	return NULL;
}

bool read_number(napi_env env, napi_value value, const char *name, double *result)
{
	if (napi_get_value_double(env, value, result) == napi_ok && isfinite(*result))
		return true;
	throw_type(env, name, "a number");
	return false;
}

static bool read_whole(napi_env env, napi_value value, const char *name, double lowest, double highest, double *result)
{
	if (napi_get_value_double(env, value, result) == napi_ok && *result >= lowest && *result <= highest &&
	    (double)(int64_t)*result >= *result)
		return true;
	throw_type(env, name, "a whole number in range");
	return false;
}

bool read_u32(napi_env env, napi_value value, const char *name, uint32_t *result)
{
	double number;
	if (!read_whole(env, value, name, 0, UINT32_MAX, &number))
		return false;
	*result = (uint32_t)number;
	return true;
}

bool read_u16(napi_env env, napi_value value, const char *name, uint16_t *result)
{
	double number;
	if (!read_whole(env, value, name, 0, UINT16_MAX, &number))
		return false;
	*result = (uint16_t)number;
	return true;
}

bool read_int(napi_env env, napi_value value, const char *name, int *result)
{
	double number;
	if (!read_whole(env, value, name, 1, INT_MAX, &number))
		return false;
	*result = (int)number;
	return true;
}

bool read_descriptor(napi_env env, napi_value value, int *result)
{
	double number;
	if (!read_whole(env, value, "a file descriptor", 0, INT_MAX, &number))
		return false;
	*result = (int)number;
	return true;
}

bool read_bool(napi_env env, napi_value value, const char *name, bool *result)
{
	if (napi_get_value_bool(env, value, result) == napi_ok)
		return true;
	throw_type(env, name, "true or false");
	return false;
}

bool read_text(napi_env env, napi_value value, const char *name, char *text, size_t size)
{
	size_t length;
	if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != napi_ok) {
		throw_type(env, name, "a string");
		return false;
	}
	if (length >= size || napi_get_value_string_utf8(env, value, text, size, &length) != napi_ok ||
	    strlen(text) != length) {
		throw_type(env, name, "shorter and without a NUL character");
		return false;
	}
	return true;
}

static void add_value(napi_env env, napi_value object, const char *name, napi_value value)
{
	ok(env, napi_set_named_property(env, object, name, value));
}

void add_function(napi_env env, napi_value object, const char *name, napi_callback function)
{
	napi_value value;
	if (ok(env, napi_create_function(env, name, NAPI_AUTO_LENGTH, function, NULL, &value)))
		add_value(env, object, name, value);
}

void add_string(napi_env env, napi_value object, const char *name, const char *text)
{
	napi_value value;
	if (ok(env, napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &value)))
		add_value(env, object, name, value);
}

void add_number(napi_env env, napi_value object, const char *name, double number)
{
	napi_value value = new_number(env, number);
	if (value)
		add_value(env, object, name, value);
}

void add_descriptors(napi_env env, napi_value object, const char *name, const int *descriptors, size_t count)
{
	napi_value list, value;
	if (!ok(env, napi_create_array_with_length(env, count, &list)))
		return;
	for (size_t i = 0; i < count; i++) {
		value = new_number(env, descriptors[i]);
		if (!value || !ok(env, napi_set_element(env, list, (uint32_t)i, value)))
			return;
	}
	add_value(env, object, name, list);
}

napi_value new_object(napi_env env)
{
	napi_value object;
	return ok(env, napi_create_object(env, &object)) ? object : NULL;
}

napi_value new_number(napi_env env, double number)
{
	napi_value value;
	return ok(env, napi_create_double(env, number, &value)) ? value : NULL;
}

napi_value new_descriptor(napi_env env, int fd)
{
	napi_value value = new_number(env, fd);
	if (!value)
		close(fd);
	return value;
}

napi_value finished(napi_env env, napi_value object)
{
	bool pending = true;
	return napi_is_exception_pending(env, &pending) == napi_ok && !pending ? object : NULL;
}
