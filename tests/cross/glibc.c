// SPDX-License-Identifier: GPL-2.0-only
/* What Debian's libelf, libnetfilter_conntrack and libgcc_s want of glibc and musl does not have. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int __vsnprintf_chk(char *to, size_t size, int flag, size_t room, const char *format, va_list words)
{
	(void)flag;
	(void)room;
	return vsnprintf(to, size, format, words);
}

int __snprintf_chk(char *to, size_t size, int flag, size_t room, const char *format, ...)
{
	va_list words;
	va_start(words, format);
	int length = __vsnprintf_chk(to, size, flag, room, format, words);
	va_end(words);
	return length;
}

int __fprintf_chk(FILE *to, int flag, const char *format, ...)
{
	(void)flag;
	va_list words;
	va_start(words, format);
	int length = vfprintf(to, format, words);
	va_end(words);
	return length;
}

int __printf_chk(int flag, const char *format, ...)
{
	(void)flag;
	va_list words;
	va_start(words, format);
	int length = vprintf(format, words);
	va_end(words);
	return length;
}

void *rawmemchr(const void *from, int wanted)
{
	const unsigned char *at = from;
	while (*at != (unsigned char)wanted)
		at++;
	return (void *)at;
}

/* Nobody unwinds here. */
int _dl_find_object(void *at, void *result)
{
	(void)at;
	(void)result;
	return -1;
}
