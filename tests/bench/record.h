/* A record, as the writers make it and the checker knows it again. */

#ifndef RECORD_H
#define RECORD_H

#include <stddef.h>

/* With the newline at its end. */
#define RECORD_SIZE 90

/* The longest name of a writer. */
#define NAME_SIZE 24

/*
 * Writes record `number` of `writer`, RECORD_SIZE bytes without a final 0: both at its
 * beginning, then letters that follow from the number, so that a record of which any byte
 * is another's, or was never written, is seen to be torn.
 */
void record_render(char *record, const char *writer, unsigned long number);

/*
 * Whether these RECORD_SIZE bytes are a record; if so its writer's name goes to `writer`
 * (NAME_SIZE + 1 bytes) and its number to `number`.
 */
int record_parse(const char *record, char *writer, unsigned long *number);

#endif
