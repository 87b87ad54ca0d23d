//! Every row of the command-line contract holds, but for the gaps that its files name.

use rmpi_tests::contract;

#[test]
fn every_row_of_the_contract_holds() {
    let verdicts = contract::check("");
    assert!(verdicts.len() > 100, "the contract's rows were not found");
    assert!(verdicts.iter().all(contract::Verdict::as_written), "{}", contract::report(&verdicts));
}
