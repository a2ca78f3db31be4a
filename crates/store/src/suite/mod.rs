//! One suite for every store: each test is named for the promise that it checks.
//!
//! [`crate::conformance`] and [`crate::races`] make `#[tokio::test]`s of it for a store. [`random`] makes random calls
//! to two stores and compares their answers. For tests alone (feature `testing`).
#![allow(missing_docs, reason = "the names of the tests say what they promise")]
#![allow(clippy::missing_panics_doc, clippy::expect_used, reason = "tests panic where a promise is broken")]

pub mod authored;
pub mod claims;
pub mod events;
pub mod groups;
pub mod listing;
pub mod memberships;
pub mod moving;
pub mod once;
pub mod order;
pub mod outcomes;
pub mod queries;
pub mod races;
pub mod random;
pub mod received;
pub mod records;
pub mod removals;
pub mod service;
pub mod stock;
pub mod world;

/// Runs the suite over the stores that `$make` opens: an async function that gives a [`world::Subject`], or nothing.
#[macro_export]
macro_rules! conformance {
    ($make:expr) => {
        $crate::conformance! { $make;
            events: [
                what_is_stored_is_found_and_held
                an_event_is_stored_once_in_one_batch_and_later
                cursors_rise_in_the_order_of_the_batch
                an_ephemeral_event_gets_a_cursor_and_is_not_kept
                what_is_for_the_log_alone_is_found_by_no_query_and_known_as_a_duplicate
                what_has_expired_is_not_found_and_then_swept
                an_expired_event_is_absent_for_admission
                an_older_version_is_ok_false
                a_sweep_removes_no_more_than_asked_for
                of_an_address_the_newest_stays
                of_one_second_the_lowest_id_stays
                identifiers_tell_addresses_apart
                an_expired_version_holds_no_address
                the_log_says_which_groups_an_event_touches
                what_is_in_the_log_is_fetched_by_its_place
                the_log_leads_to_the_subscriptions_that_wait
                odd_tag_values_harm_nobody
                events_of_many_tags_refuse_no_innocent
            ]
            queries: [
                answers_come_newest_first_then_by_lowest_id
                an_event_comes_once_though_several_ranges_hold_it
                pages_of_any_size_add_up_to_the_whole
                a_page_stays_within_its_bounds
                nothing_committed_after_the_given_cursor_is_found
                since_and_until_are_inclusive
                authors_are_found_with_and_without_kinds
                every_condition_of_a_filter_counts
                private_events_are_found_under_their_audience_alone
                all_rosters_are_found_without_naming_groups
                a_reader_of_many_groups_finds_them_merged
                a_request_of_many_values_is_read_in_bounded_pieces
                groups_that_are_known_are_told_from_those_that_are_not
            ]
            authored: [
                all_events_of_an_author_are_found_by_their_quota
            ]
            groups: [
                a_roster_changes_its_group_as_it_is_stored
                of_rosters_with_one_seq_one_wins
                a_repeated_roster_is_a_duplicate_and_not_stale
                events_of_a_batch_see_each_other
                a_message_needs_a_member_when_it_is_committed
                a_former_member_does_not_hear_that_its_message_is_stored
                an_unlisted_message_is_refused_once_the_group_is_managed
                a_group_that_carried_unlisted_messages_is_marked_for_ever
                a_wrap_founds_a_group_and_invites
                of_two_founders_in_a_race_the_first_wins
                a_key_founds_twenty_groups_in_a_day
                the_last_epoch_is_that_of_the_messages
                a_refused_event_leaves_nothing_behind
            ]
            listing: [
                managed_groups_are_listed_in_the_order_of_their_ids
                owners_of_key_packages_are_listed_in_the_order_of_their_keys
            ]
            memberships: [
                strangers_never_take_a_membership_that_was_acted_in
                of_memberships_of_one_second_the_lowest_id_gives_way
                many_memberships_of_one_keys_making_give_way_before_anothers_one
                a_membership_that_an_admin_key_made_never_gives_way
                members_do_not_use_up_the_invitations_of_the_groups_founder
                a_membership_that_a_bound_forbids_is_ok_false
                rosters_obey_the_bound_on_memberships
                memberships_that_nobody_acted_in_count_against_the_key_that_made_them
                a_membership_that_gave_way_may_be_made_again
                a_wrap_that_changes_nothing_touches_no_group
            ]
            order: [
                of_several_commits_of_one_epoch_the_first_counts
                a_commit_is_for_the_current_epoch_alone
                advisory_stores_the_message_and_says_why_it_does_not_fit
                a_tag_that_contradicts_the_header_is_refused
                messages_of_an_epoch_that_was_left_have_a_grace
                a_commit_that_ends_early_is_none
                a_commit_stays_when_its_key_vanishes
                an_admin_frees_an_epoch
                a_roster_chooses_the_order_of_its_group
            ]
            service: [
                an_answer_makes_a_group_and_the_next_one_changes_it
                the_answer_to_an_earlier_question_comes_too_late
                no_answer_to_a_question_before_a_refresh_counts
                a_refresh_without_an_answer_closes_the_group_until_there_is_one
                a_group_that_awaits_an_answer_takes_no_event
                the_service_takes_over_what_other_sources_ran
                a_key_without_room_stays_out
                a_shared_store_tells_followers_of_an_answer
            ]
            received: [
                a_list_is_in_the_order_of_receipt
                a_list_goes_on_behind_its_place
                a_list_ends_at_the_cursor_that_it_is_given
                an_inbox_merges_its_kinds
                what_is_gone_is_in_no_list
                what_no_query_finds_is_in_no_list
            ]
            once: [
                a_name_is_used_once_until_its_time
                all_names_past_their_time_are_forgotten
            ]
            outcomes: [
                every_ok_true_had_its_effect
            ]
            removals: [
                a_deletion_removes_its_authors_events_for_good
                a_deletion_that_comes_first_holds
                what_is_large_is_deleted_like_the_rest
                a_recipient_deletes_what_was_sent_to_it
                a_wrap_sent_again_is_a_duplicate_deleted_or_not
                group_messages_and_rosters_are_deleted_by_nobody
                a_deletion_is_not_deleted
                a_deletion_is_public_unless_it_names_what_is_private_to_its_author
                an_address_is_deleted_up_to_the_deletions_time
                a_key_that_vanishes_takes_its_events_at_once_and_for_good
                events_of_a_vanished_key_hold_no_address_and_no_reference
                a_key_that_vanishes_leaves_its_groups_but_not_without_an_admin
                a_reference_names_one_key_package
                a_deletion_removes_a_bounded_number_of_tags
                what_is_removed_is_gone_at_once_however_many_rows_it_has
                a_removed_event_that_comes_again_is_found_by_all_its_rows
                deleting_a_key_package_leaves_its_twin
                a_claim_takes_the_oldest_with_its_twins_and_leaves_the_last
                a_package_that_is_not_sent_is_not_used_up
                a_limit_bounds_what_is_used_up
                a_claim_that_may_use_nothing_up_gives_what_stays
            ]
            claims: [
                the_last_package_is_of_last_resort_once_it_was_given
                a_banned_package_is_as_if_it_were_not_there
                a_claim_takes_packages_of_its_ciphersuite
                the_rates_of_claims_hold_for_an_hour
                strangers_take_a_part_of_the_stock
                one_stranger_takes_a_quarter_of_the_strangers_part
                an_answer_is_given_again_under_its_name
                an_owner_is_asked_when_its_stock_is_low
                an_owner_is_not_asked_before_it_answered
                an_owner_of_an_addressable_package_is_never_asked
                a_sweep_tells_of_packages_that_expire
                a_group_is_shared_with_an_owner_that_acted_in_it
                many_common_groups_do_not_hide_the_one_that_counts
            ]
            records: [
                a_record_is_written_by_those_who_know_its_version
                a_record_may_be_large
            ]
            stock: [
                of_an_owner_the_newest_packages_are_kept
                what_is_sent_again_pushes_nothing_newer_out
                a_refused_version_leaves_the_one_before_it
                an_owner_keeps_a_bounded_number_of_last_resort
                a_bounded_number_of_events_holds_one_package
                what_was_given_never_becomes_new
                a_used_up_package_never_comes_back
                an_older_version_never_comes_back
            ]
        }
    };
    ($make:expr; $($module:ident: [$($promise:ident)*])*) => {
        $($(
            #[tokio::test]
            async fn $promise() {
                // `None` means that the store's engine is missing, which has been printed.
                let Some(subject) = $make().await else { return };
                let mut world = $crate::suite::world::World::new(subject);
                $crate::suite::$module::$promise(&mut world).await;
            }
        )*)*
    };
}

/// Runs the [`races`] over the stores that `$open` opens: an async function that takes the number of handles and gives
/// [`races::Handles`], or nothing.
#[macro_export]
macro_rules! races {
    ($open:expr) => {
        $crate::races! { $open;
            of_forty_writers_of_one_seq_one_wins
            of_forty_commits_of_one_epoch_one_counts
            of_forty_claimants_each_package_goes_to_one
            of_forty_racers_one_uses_a_name
            of_forty_writers_of_one_record_one_wins
            who_follows_the_log_misses_nothing_and_sees_nothing_twice
            no_message_of_a_member_lies_behind_its_removal
            a_membership_that_was_acted_in_never_gives_way
            a_key_that_vanished_elsewhere_is_hidden_in_every_process
        }
    };
    ($open:expr; $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let Some(handles) = $open($crate::suite::races::HANDLES).await else { return };
                $crate::suite::races::$promise(&handles).await;
            }
        )*
    };
}
