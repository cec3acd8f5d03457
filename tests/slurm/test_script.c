// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "slurm/submit.h"
#include "slurm/templates.h"

static void template_fill__leaves_out_lines_without_a_value(void **state)
{
    (void)state;
    const sh_template_value values[] = {{"a", "1"}, {"b", ""}};
    char *text = NULL;

    assert_int_equal(
        sh_template_fill("t", "x={{a}}\ny={{b}}\n\nz={{a}}{{b}}\nend", values, 2, &text), SH_OK);
    assert_string_equal(text, "x=1\n\nz=1\nend\n");
    free(text);
}

static void template_fill__names_the_line_of_a_fault(void **state)
{
    (void)state;
    const sh_template_value values[] = {{"a", "1"}};
    char *text = NULL;

    assert_int_equal(sh_template_fill("my.sbatch", "{{a}}\n{{c}}\n", values, 1, &text),
                     SH_ERR_FORMAT);
    assert_non_null(strstr(sh_error_message(), "my.sbatch, line 2"));
    assert_int_equal(sh_template_fill("my.sbatch", "{{a", values, 1, &text), SH_ERR_FORMAT);
    assert_null(text);
}

static sh_submit_request request(void)
{
    return (sh_submit_request){.shoal = "/opt/shoal",
                               .experiment = "/scratch/runs/a/experiment.yaml",
                               .run = "/scratch/runs/a",
                               .folder = "/scratch",
                               .name = "a",
                               .nodes = "2",
                               .first_seed = 7};
}

static char *script_of(const sh_submit_request *r, void (*change)(sh_site *site))
{
    sh_site *site = calloc(1, sizeof(*site));
    char *script = NULL;

    assert_non_null(site);
    assert_int_equal(sh_options_defaults(sh_site_options(), site), SH_OK);
    if (change != NULL) change(site);
    assert_int_equal(sh_submit_check(r), SH_OK);
    assert_int_equal(sh_submit_script(r, site, &script), SH_OK);
    free(site);
    return script;
}

static void expect_line(const char *script, const char *line)
{
    char wanted[512];

    snprintf(wanted, sizeof(wanted), "\n%s\n", line);
    if (strstr(script, wanted) == NULL) fail_msg("no line \"%s\" in:\n%s", line, script);
}

static void fill_site(sh_site *site)
{
    snprintf(site->account, sizeof(site->account), "fish");
    snprintf(site->modules, sizeof(site->modules), "gcc\nopenmpi");
    snprintf(site->gpu_partition, sizeof(site->gpu_partition), "accel");
    site->ranks_per_node = 3;
    site->requeue = false;
}

static void submit_script__has_what_the_request_and_the_site_say(void **state)
{
    (void)state;
    sh_submit_request r = request();
    char *script = script_of(&r, NULL);

    expect_line(script, "#SBATCH --nodes=2");
    expect_line(script, "#SBATCH --time=1:00:00");
    expect_line(script, "#SBATCH --output=/scratch/runs/a/slurm-%j.log");
    expect_line(script, "#SBATCH --requeue");
    assert_null(strstr(script, "--account"));
    assert_null(strstr(script, "--array"));
    assert_null(strstr(script, "--chain"));
    assert_null(strstr(script, "{{"));
    free(script);
    script = script_of(&r, fill_site);
    expect_line(script, "#SBATCH --account=fish");
    expect_line(script, "#SBATCH --mincpus=3");
    expect_line(script, "#SBATCH --no-requeue");
    expect_line(script, "module load gcc openmpi");
    assert_non_null(strstr(script, "--chain /scratch/runs/a/job.sbatch"));
    free(script);
}

static void submit_script__asks_for_gpus_by_the_other_template(void **state)
{
    (void)state;
    sh_submit_request r = request();

    r.gpus = 4;
    char *script = script_of(&r, fill_site);

    expect_line(script, "#SBATCH --gres=gpu:4");
    expect_line(script, "#SBATCH --mincpus=4");
    expect_line(script, "#SBATCH --partition=accel");
    free(script);
}

static void submit_run__deals_folds_and_seeds_to_tasks(void **state)
{
    (void)state;
    sh_submit_request r = request();
    char path[256], options[256];

    r.folds = 3;
    r.seeds = 2;
    assert_int_equal(sh_submit_n_runs(&r), 6);
    assert_int_equal(sh_submit_run(&r, 3, path, options, sizeof(path)), SH_OK);
    assert_string_equal(path, "/scratch/runs/a/fold1-seed8");
    assert_string_equal(options, "split.folds=3 split.fold=1 seed=8");
    char *script = script_of(&r, NULL);

    expect_line(script, "#SBATCH --array=0-5");
    expect_line(script, "3) run=/scratch/runs/a/fold1-seed8 "
                        "options='split.folds=3 split.fold=1 seed=8' ;;");
    free(script);
}

static void submit_check__refuses_what_a_script_would_misread(void **state)
{
    (void)state;
    static const char *const bad_runs[] = {"/scratch/my runs/a", "/scratch/$HOME", "/scratch/%j",
                                           "/scratch/a;b"};
    static const char *const bad_nodes[] = {"", "0", "two", "2-", "-2", "2-0", "1-2-3"};
    sh_submit_request r = request();

    for (size_t i = 0; i < SH_COUNT(bad_runs); i++) {
        r.run = bad_runs[i];
        assert_int_equal(sh_submit_check(&r), SH_ERR_USAGE);
    }
    r = request();
    for (size_t i = 0; i < SH_COUNT(bad_nodes); i++) {
        r.nodes = bad_nodes[i];
        assert_int_equal(sh_submit_check(&r), SH_ERR_USAGE);
    }
    r = request();
    r.time = "soon";
    assert_int_equal(sh_submit_check(&r), SH_ERR_USAGE);
    r = request();
    r.nodes = "2-4";
    r.time = "1-12:00:00";
    assert_int_equal(sh_submit_check(&r), SH_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(template_fill__leaves_out_lines_without_a_value),
        cmocka_unit_test(template_fill__names_the_line_of_a_fault),
        cmocka_unit_test(submit_script__has_what_the_request_and_the_site_say),
        cmocka_unit_test(submit_script__asks_for_gpus_by_the_other_template),
        cmocka_unit_test(submit_run__deals_folds_and_seeds_to_tasks),
        cmocka_unit_test(submit_check__refuses_what_a_script_would_misread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
