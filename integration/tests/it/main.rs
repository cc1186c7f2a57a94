//! The scenarios: stock clients judge the server. One file each, and its name is what it proves; every one
//! runs on SQLite and on Postgres. `../../README.md` tells how to write one.

/// Makes the two tests of a scenario: `scenario!(function)`, or `scenario!(function, alone)` when it judges
/// times or uses the whole machine.
macro_rules! scenario {
    ($scenario:path) => {
        scenario!(@$scenario, mesh_integration::Company::Welcome);
    };
    ($scenario:path, alone) => {
        scenario!(@$scenario, mesh_integration::Company::Unwelcome);
    };
    (@$scenario:path, $company:path) => {
        #[test]
        fn on_sqlite() {
            mesh_integration::run(mesh_integration::Engine::Sqlite, $company, $scenario);
        }

        #[test]
        fn on_postgres() {
            mesh_integration::run(mesh_integration::Engine::Postgres, $company, $scenario);
        }
    };
}

mod a_client_is_up_in_no_time;
mod a_database_that_crashes_loses_nothing;
mod a_database_that_is_away_loses_nothing;
mod a_deleted_node_is_cut_from_its_relay;
mod a_deleted_node_is_told_to_log_in;
mod a_deleted_strict_client_joins_as_another_node;
mod a_forced_reauth_with_a_single_use_key_succeeds;
mod a_full_disk_is_told_loudly;
mod a_group_edit_is_heard_by_those_it_concerns;
mod a_home_region_that_moves_is_followed;
mod a_key_that_runs_out_brings_back_no_old_map;
mod a_mesh_of_go_s_relay_and_ours_carries_traffic;
mod a_name_resolves_and_an_address_tells_whose_it_is;
mod a_node_is_reached_again_whatever_happened_to_it;
mod a_node_keeps_its_home_relay_over_reauth_and_deletion;
mod a_node_of_ours_outlives_the_server;
mod a_node_that_logged_out_comes_back;
mod a_policy_cut_is_felt_by_every_pair_of_clients;
mod a_policy_file_is_followed_unless_it_is_broken;
mod a_policy_is_felt_within_a_second;
mod a_policy_outlives_a_restart;
mod a_refused_key_tells_the_user_why;
mod a_relay_that_restarts_is_hardly_noticed;
mod a_restart_of_the_server_is_hardly_noticed;
mod a_restarted_client_is_the_same_node;
mod a_server_does_not_start_with_an_invalid_policy;
mod a_stock_client_beside_many_hears_deltas;
mod a_stock_client_reaches_ours_directly_at_once;
mod a_stock_client_takes_a_large_tailnet_in_steps;
mod a_strict_client_follows_policies;
mod a_strict_client_needs_one_map_stream;
mod a_subnet_route_is_used_once_approved;
mod a_tag_is_given_to_its_owners_only;
mod a_tagged_key_makes_a_tagged_node;
mod a_trusted_router_needs_no_admin;
mod an_app_capability_shows_in_whois;
mod an_ephemeral_node_is_gone_after_logout;
mod an_exit_node_is_offered_to_those_allowed;
mod an_interactive_login_ends_at_the_command_line;
mod clients_of_two_regions_reach_each_other;
mod clients_upload_no_logs;
mod every_pair_of_clients_talks;
mod killed_in_the_middle_of_registrations;
mod lite_updates_are_answered_at_once;
mod node_attributes_come_and_go_with_the_policy;
mod nodes_that_join_see_each_other;
mod others_hear_of_a_third_node_as_deltas;
mod ssh_rules_come_and_go_with_the_policy;
mod stalled_readers_delay_nobody;
mod ten_megabytes_cross_a_relay_by_itself;
mod ten_megabytes_cross_directly;
mod ten_megabytes_cross_the_relay;
mod the_second_router_takes_over_for_good;
mod thirty_nodes_talk_by_relay_alone_at_once;
mod thirty_nodes_that_join_at_once_see_each_other;
