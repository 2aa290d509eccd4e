/* Arguments: strict readers, so that a wrong value is a TypeError here and never a wrapped number in a system call. */
#include "addon.h"

#include <limits.h>
#include <math.h>
#include <string.h>

bool read_arguments(napi_env env, napi_callback_info info, size_t count, napi_value *arguments, napi_value *self)
{
	return ok(env, napi_get_cb_info(env, info, &count, arguments, self, NULL));
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
