// SPDX-License-Identifier: Apache-2.0
/** What is in a dataset, and what about it would spoil a score: for `shoal inspect` and reports. */
#ifndef SH_DATAIO_SURVEY_H
#define SH_DATAIO_SURVEY_H

#include "dataio/pack.h"

SH_C_BEGIN

enum { SH_SMALL_SIDE = 64 }; /* pixels; crops with a shorter side count as small */

typedef struct sh_range {
    double min, median, max;
} sh_range;

/** One individual, recording, camera or species. */
typedef struct sh_survey_row {
    const char *name;
    int64_t n_crops;
    int n_individuals, n_recordings, n_cameras; /* distinct ones among its crops */
    int64_t n_left, n_right;
} sh_survey_row;

typedef struct sh_survey_table {
    sh_survey_row *rows; /* by name, bytewise; crops without the label are not in it */
    int n;
} sh_survey_table;

typedef struct sh_survey {
    int64_t n_crops, n_labelled, n_small;
    int64_t n_without_recording;    /* of the labelled */
    int64_t n_by_format[5];         /* by sh_image_format */
    sh_range width, height, aspect; /* aspect: width / height */
    sh_survey_table individuals, recordings, cameras, species;
    int n_single;            /* individuals with one crop */
    int n_one_recording;     /* labelled individuals seen in one recording only, or in none known */
    int n_shared;            /* recordings that hold more than one individual */
    double frame_gap;        /* median distance of neighbouring frames of one track; 0: unknown */
    sh_drop_list duplicates; /* the same pixels as another crop of the same individual */
    sh_drop_list mislabels;  /* the same pixels under two individuals */
    sh_drop_list leaks;      /* what would make a score too good: title, explanation */
} sh_survey;

/** Survey a dataset from its tables; no image is read. Strings point into the dataset. */
SH_MUST_CHECK sh_status sh_survey_make(const sh_dataset *dataset, sh_survey *out);
void sh_survey_clear(sh_survey *survey);

SH_C_END

#endif
