//! One suite, run over each provider that this machine has.
//!
//! tcp must be there. Others are left out where they are not, and a property where a provider
//! does not have it; each time the reason is printed (`cargo test -- --nocapture`).

#[path = "provider/failures.rs"]
mod failures;
#[path = "provider/messages.rs"]
mod messages;
#[path = "provider/openings.rs"]
mod openings;
#[path = "provider/pair.rs"]
mod pair;
#[path = "provider/reads.rs"]
mod reads;
#[path = "provider/waits.rs"]
mod waits;

macro_rules! suite {
    ($($provider:ident)*) => {$(
        mod $provider {
            suite!(@test stringify!($provider);
                messages::one_byte_goes_there_and_back
                messages::the_longest_message_goes_there_and_back
                messages::a_message_of_parts_arrives_as_one
                messages::a_longer_message_is_refused
                messages::many_messages_arrive_once_each_though_buffers_are_few
                messages::two_threads_ask_and_answer
                reads::bytes_of_any_length_arrive_from_any_offset
                reads::a_window_of_reads_is_under_way_at_once
                reads::more_reads_than_settings_allow_are_busy_and_keep_their_piece
                reads::a_read_into_another_arena_panics
                failures::a_read_under_way_from_a_lost_peer_returns_its_piece
                failures::a_read_from_a_peer_that_is_gone_returns_its_piece
                failures::a_wrong_key_is_an_error
                failures::a_removed_peer_is_refused_and_others_go_on
                failures::an_address_of_another_shape_is_refused
                waits::an_idle_network_blocks_and_a_message_wakes_it
                openings::an_arena_outlives_its_networks
                openings::a_network_moves_to_another_thread_and_drops_there
                openings::what_is_open_can_be_named
                openings::too_many_receives_are_refused_with_the_bound
            );
        }
    )*};
    (@test $provider:expr; $($module:ident::$test:ident)*) => {$(
        #[test]
        fn $test() {
            crate::$module::$test($provider);
        }
    )*};
}
suite!(tcp sockets shm);

#[test]
fn an_unknown_provider_gets_one_line_with_what_is_there() {
    openings::an_unknown_provider_gets_one_line_with_what_is_there();
}

#[test]
fn an_address_of_another_machine_cannot_be_bound() {
    openings::an_address_of_another_machine_cannot_be_bound();
}

#[test]
fn settings_of_zero_are_refused() {
    openings::settings_of_zero_are_refused();
}

#[test]
fn nobody_gets_an_unfit_provider_unasked() {
    openings::nobody_gets_an_unfit_provider_unasked();
}
