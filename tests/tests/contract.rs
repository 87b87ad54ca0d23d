//! Every row of the command-line contract holds.

use rmpi_tests::contract;

#[test]
fn every_row_of_the_contract_holds() {
    let verdicts = contract::check("");
    assert!(verdicts.len() > 100, "the contract's rows were not found");
    assert!(verdicts.iter().all(|v| v.broken.is_none()), "{}", contract::report(&verdicts));
}
